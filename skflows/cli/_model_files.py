"""The models that commands fit, and those that they read from a file."""

from ..density import ARCHITECTURES, GaussianizationDensity
from ..ensemble._auto import AutoDensity
from ..persistence.mixin import PersistenceMixin
from ..persistence.model_file import load
from ..table import TableDensity
from ._tables import is_standard, one_line, standard_input

ESTIMATORS = ARCHITECTURES | {
    "gaussianization": GaussianizationDensity,
    "auto": AutoDensity,
    "table": TableDensity,
}
DENSITIES = tuple(ESTIMATORS.values())


def load_model(args, classes=DENSITIES, fitted="offset_"):
    """Load the model of a command: a file of `save`, or a pickle if the user trusts it."""
    path = args.model
    if is_standard(path) and is_standard(getattr(args, "data", None)):
        raise ValueError("model and data are both -: only one of them can be standard input")
    is_foreign = _is_foreign(path)
    if args.allow_pickle and is_foreign:
        model = _unpickle(path)
    else:
        try:
            model = load(standard_input() if is_standard(path) else path)
        except OSError as error:
            raise ValueError(f"cannot read {path}: {one_line(error)}") from error
        except ValueError as error:
            hint = "; if it is a pickle that you trust, add --allow-pickle" if is_foreign else ""
            raise ValueError(f"{one_line(error)}{hint}") from error
    if isinstance(model, classes) and hasattr(model, fitted):
        return model
    # These take long to import.
    from ..compression import FlowCompressor
    from ..conditional import DensityClassifier, FlowRegressor

    uses = (
        ((FlowRegressor, DensityClassifier), "predicts a column: use skflows predict"),
        (TableDensity, "is a density of tables: use skflows score, sample or impute"),
        (DENSITIES, "is a density: use skflows score or sample"),
        (FlowCompressor, "compresses data: use skflows compress or decompress"),
        (PersistenceMixin, "no command takes: use skflows.load in Python"),
    )
    writers = {DENSITIES: "fit", FlowCompressor: "compress"}
    holds = f"it holds a {type(model).__name__}"
    for other, use in uses:
        if isinstance(model, other) and not isinstance(model, classes):
            raise ValueError(
                f"{path} is not a model for this command: {holds}, which {use}, or give a model of "
                f"skflows {writers.get(classes, 'fit --target')}"
            )
    raise ValueError(f"{path} is not a fitted model of skflows: {holds}")


def _is_foreign(path):
    """Return whether a file may be one that `save` did not write."""
    if is_standard(path):
        return True  # what comes in cannot be looked at beforehand
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(2) != b"PK"


def _unpickle(path):
    import joblib

    try:
        return joblib.load(standard_input() if is_standard(path) else path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {one_line(error)}") from error
    except Exception as error:  # unpickling other bytes may raise anything
        raise ValueError(f"{path} is not a pickle that can be loaded: {one_line(error)}") from error
