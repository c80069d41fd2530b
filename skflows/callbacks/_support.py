"""Callbacks of scikit-learn, which exist from 1.9 on: with an earlier one, fits have none."""

from contextlib import nullcontext

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class NoCallbacks:
        """The context of a fit, or of a task in it, that no callback sees."""

        parent = "unknown"  # whether the fit is a part of another one
        max_subtasks = None

        def subcontext(self, **task):
            return self

        def propagate_callback_context(self, estimator):
            return nullcontext()

        def call_on_fit_task_begin(self, **data):
            pass

        def call_on_fit_task_end(self, **data):
            return False  # no callback asks to stop the fit

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Base of estimators that take callbacks, where scikit-learn has them."""

        def set_callbacks(self, *callbacks):
            """Refuse callbacks, which need scikit-learn 1.9 or newer.

            Parameters
            ----------
            *callbacks : callback instances
                None, to clear them, or an error is raised.

            Returns
            -------
            self : object
                The estimator.
            """
            if callbacks:
                raise NotImplementedError(
                    f"callbacks={list(callbacks)!r}; this scikit-learn has none: install "
                    "scikit-learn>=1.9."
                )
            return self

        def _init_callback_context(self, **task):
            return NoCallbacks()


__all__ = ["CallbackSupportMixin"]
