"""Every private name of scikit-learn that skflows uses.

scikit-learn may move or rename them in any release: this is the one place to follow. A name is
imported when it is first used, because some of these modules take long to import.
"""

from importlib import import_module

# Private methods that our subclasses call: of a class, by its public name.
PRIVATE_METHODS = {
    "sklearn.base.BaseEstimator": ("_validate_params",),
    "sklearn.callback.CallbackSupportMixin": ("_init_callback_context",),
    "sklearn.model_selection.GridSearchCV": (
        "_check_refit_for_multimetric",
        "_format_results",
        "_get_routed_params_for_fit",
        "_get_scorers",
        "_select_best_index",
    ),
    "sklearn.utils.metaestimators._BaseComposition": ("_get_params", "_set_params"),
}
# Private attributes of fitted trees, which `conditional/_trees.py` reads into plain arrays.
PRIVATE_ATTRIBUTES = {
    "sklearn.ensemble.HistGradientBoostingRegressor": (
        "_baseline_prediction",
        "_bin_mapper",
        "_predictors",
    ),
}
# Our name: the module of scikit-learn and its name there.
PRIVATE_NAMES = {
    "BaseComposition": ("sklearn.utils.metaestimators", "_BaseComposition"),
    "HasMethods": ("sklearn.utils._param_validation", "HasMethods"),
    "Interval": ("sklearn.utils._param_validation", "Interval"),
    "Options": ("sklearn.utils._param_validation", "Options"),
    "StrOptions": ("sklearn.utils._param_validation", "StrOptions"),
    "Tree": ("sklearn.tree._tree", "Tree"),
    "TreePredictor": (
        "sklearn.ensemble._hist_gradient_boosting.predictor",
        "TreePredictor",
    ),
    "check_method_params": ("sklearn.utils.validation", "_check_method_params"),
    "check_sample_weight": ("sklearn.utils.validation", "_check_sample_weight"),
    "fit_and_score": ("sklearn.model_selection._validation", "_fit_and_score"),
    "fit_context": ("sklearn.base", "_fit_context"),
    "insert_error_scores": ("sklearn.model_selection._validation", "_insert_error_scores"),
    "safe_indexing": ("sklearn.utils", "_safe_indexing"),
    "safe_split": ("sklearn.utils.metaestimators", "_safe_split"),
    "warn_or_raise_about_fit_failures": (
        "sklearn.model_selection._validation",
        "_warn_or_raise_about_fit_failures",
    ),
}


def __getattr__(name):
    if name not in PRIVATE_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, private_name = PRIVATE_NAMES[name]
    try:
        return getattr(import_module(module), private_name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"skflows needs {private_name} of {module}, which this scikit-learn does not have: "
            "install scikit-learn>=1.7,<2."
        ) from error
