"""The ``skflows`` command: fit, score, sample and flag CSV files, without writing Python."""

__all__ = ["main"]


def main(argv=None):
    """Run the command (see `skflows.cli._main.main`), which takes long to import."""
    from ._interrupt import interrupt_again
    from ._main import main

    interrupt_again()
    return main(argv)
