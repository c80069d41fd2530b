"""The file format of fitted estimators, which runs no code when it is loaded.

A file is a zip archive: ``model.json`` with parameters and fitted attributes, one ``.npy`` file for
each array, and ``checksum`` with the SHA-256 of the others.
"""

import hashlib
import io
import json
import zipfile
from collections import OrderedDict
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator

from .atomic import replace_file
from .plain_state import FORMAT, check_format, check_state, find_class, name_of, package_version

MODEL, CHECKSUM = "model.json", "checksum"
CALLBACKS = "_skl_callbacks"  # of scikit-learn; they belong to the process, not to the model
# Classes of scikit-learn whose state is plain data, and a dtype: no skops is needed for them.
PLAIN_CLASSES = (
    "numpy:float64",
    "sklearn.frozen._frozen:FrozenEstimator",
    "sklearn.mixture._gaussian_mixture:GaussianMixture",
    "sklearn.model_selection._split:KFold",
    "sklearn.model_selection._split:ShuffleSplit",
    "sklearn.pipeline:Pipeline",
    "sklearn.preprocessing._data:QuantileTransformer",
    "sklearn.preprocessing._data:RobustScaler",
    "sklearn.preprocessing._data:StandardScaler",
    "sklearn.preprocessing._encoders:OneHotEncoder",
    "sklearn.preprocessing._target_encoder:TargetEncoder",
)
CONTAINERS = {"tuple": tuple, "set": set, "frozenset": frozenset}
BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


def save(estimator, path):
    """Write a fitted estimator to a file (see `PersistenceMixin.save`)."""
    write(estimator, type(estimator).__name__, path)


def write(value, where, path):
    """Write an object to a file; errors say where in it something cannot be written."""
    encoder = Encoder()
    stamp = {"format": FORMAT, "version": package_version(), "model": encoder(value, where)}
    files = {MODEL: json.dumps(stamp, allow_nan=False).encode()} | encoder.files
    files[CHECKSUM] = checksum(files).encode()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in files.items():
            # With a fixed date: saving a model again gives the same file.
            archive.writestr(zipfile.ZipInfo(name), content)
    with nullcontext(path) if hasattr(path, "write") else replace_file(path) as file:
        file.write(whole.getbuffer())


def load(path, *, trusted=()):
    """Load an estimator that its method `save` has stored.

    No code of the file runs, unlike with a pickle.

    Parameters
    ----------
    path : str, path-like or binary file
        The file.

    trusted : sequence of str or type, default=()
        What the file may contain besides this package: names of types for estimators of other
        libraries, as `skops.io.get_untrusted_types` gives them, and classes of your own that the
        model consists of, such as a `skflows.bijections.Bijection`.

    Returns
    -------
    estimator : estimator
        The fitted estimator. Its scores are those of the stored one, bit by bit.

    Raises
    ------
    OSError
        If the file cannot be read.

    ValueError
        If it is not such a file, is damaged, has a format of another version, or contains types
        that are not trusted.

    Warns
    -----
    sklearn.exceptions.InconsistentVersionWarning
        If another version of this package has stored it, in the same format.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_iris
    >>> import skflows
    >>> X = load_iris().data
    >>> density = skflows.MAFDensity(max_iter=2, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "iris.skflows")
    ...     density.save(path)
    ...     loaded = skflows.load(path)
    >>> bool((loaded.score_samples(X) == density.score_samples(X)).all())
    True
    """
    return read(path, "model", BaseEstimator, trusted)


def read(path, what, cls, trusted=()):
    """Return the object that `write` has stored, of a given class; errors call it ``what``."""
    if hasattr(path, "read"):
        content, path = path.read(), getattr(path, "name", "the file")
    else:
        content = Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            # Nothing that save has written is compressed: no small file becomes a large one.
            if sum(member.file_size for member in members) > len(content):
                raise ValueError("its members are larger than the file")
            files = {member.filename: archive.read(member) for member in members}
    except Exception as error:  # what the zip archive of somebody else raises
        raise ValueError(f"{path} is not a {what} of skflows, or is damaged: {error}") from error
    if MODEL not in files or CHECKSUM not in files:
        raise ValueError(f"{path} is not a {what} of skflows")
    if files.pop(CHECKSUM) != checksum(files).encode():
        raise ValueError(
            f"{path} is damaged: its content does not have the checksum that it states"
        )
    try:
        stamp = json.loads(files.pop(MODEL))
        check_format(stamp, what)
        value = Decoder(files, trusted)(stamp["model"])
        if not isinstance(value, cls):
            raise ValueError(f"it holds a {type(value).__name__}, not a {what}")
        return value
    except (ImportError, Warning):  # a warning, where these are errors
        raise
    except Exception as error:  # what a file that was tampered with raises
        raise ValueError(f"cannot load {path}: {error}") from error


def checksum(files):
    """Return the SHA-256 of files, by name."""
    found = hashlib.sha256()
    for name in sorted(files):
        for part in (name.encode(), files[name]):
            found.update(len(part).to_bytes(8, "little"))
            found.update(part)
    return found.hexdigest()


class Encoder:
    """Turn an object into what JSON can hold, with arrays and foreign objects in files apart.

    What JSON lacks becomes a dict with one key that begins with ``@``, which says what it is.
    """

    def __init__(self):
        self.files = {}
        self._seen = {}  # arrays and estimators, which may occur more than once

    def __call__(self, value, where):
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if np.isfinite(value) else {"@float": repr(value)}
        if type(value) is list:
            return [self(item, where) for item in value]
        if type(value) in CONTAINERS.values():
            return {f"@{type(value).__name__}": [self(item, where) for item in value]}
        if type(value) in (dict, OrderedDict):
            if all(type(key) is str and key[:1] != "@" for key in value):
                return {key: self(item, f"{where}.{key}") for key, item in value.items()}
            pairs = [[self(key, where), self(item, where)] for key, item in value.items()]
            return {"@dict": pairs}
        if isinstance(value, np.generic):
            return {"@scalar": self._array(np.asarray(value))}
        if id(value) in self._seen:
            return {"@same": self._seen[id(value)][0]}
        number = len(self._seen)
        self._seen[id(value)] = number, value  # kept, so that no other object gets its id
        return self._object(value, where) | {"@number": number}

    def _object(self, value, where):
        cls = type(value)
        if isinstance(value, np.ndarray) and value.dtype == object:
            flat = [self(item, where) for item in value.ravel()]
            return {"@objects": flat, "shape": list(value.shape)}
        if cls in (np.ndarray, np.memmap):
            return {"@array": self._array(value)}
        if cls is np.random.RandomState:
            return {"@random_state": self(value.get_state(legacy=False), where)}
        if cls is np.random.Generator:
            return {"@generator": self(value.bit_generator.state, where)}
        if isinstance(value, type):
            return {"@class": name_of(value)[0]}
        if has_plain_state(cls):
            state = {k: v for k, v in value.__getstate__().items() if k != CALLBACKS}
            return {"@estimator": name_of(cls)[0], "state": self(state, where)}
        return {"@skops": self._file(dump_foreign(value, where), "skops")}

    def _array(self, array):
        content = io.BytesIO()
        np.lib.format.write_array(content, array, allow_pickle=False)
        return self._file(content.getvalue(), "npy")

    def _file(self, content, suffix):
        name = f"{len(self.files)}.{suffix}"
        self.files[name] = content
        return name


class Decoder:
    """Undo what `Encoder` did."""

    def __init__(self, files, trusted):
        self.files = files
        if isinstance(trusted, str):
            raise ValueError(f"trusted={trusted!r}; it must be a list")
        self.classes = {name_of(each)[0]: each for each in trusted if isinstance(each, type)}
        self.trusted = [each for each in trusted if isinstance(each, str)]
        self._seen = {}

    def __call__(self, value):
        if isinstance(value, list):
            return [self(item) for item in value]
        if not isinstance(value, dict):
            return value
        kind = next((key for key in value if key[:1] == "@"), None)
        if kind is None:
            return {key: self(item) for key, item in value.items()}
        if kind == "@same":
            return self._seen[value[kind]]
        found = self._object(kind[1:], value)
        if "@number" in value:
            self._seen[value["@number"]] = found
        return found

    def _object(self, kind, value):
        content = value[f"@{kind}"]
        match kind:
            case "float":
                return float(content)
            case "dict":
                return {self(key): self(item) for key, item in content}
            case "scalar":
                return self._array(content)[()]
            case "array":
                return self._array(content)
            case "objects":
                array = np.empty(len(content), dtype=object)
                for i, item in enumerate(content):
                    array[i] = self(item)
                return array.reshape(value["shape"])
            case "random_state":
                state = np.random.RandomState()
                state.set_state(self(content))
                return state
            case "generator":
                state = self(content)
                if state["bit_generator"] not in BIT_GENERATORS:
                    raise ValueError(f"unknown bit generator {state['bit_generator']!r}")
                bits = getattr(np.random, state["bit_generator"])()
                bits.state = state
                return np.random.Generator(bits)
            case "estimator":
                cls, state = self._class(content), self(value["state"])
                if not has_plain_state(cls):
                    raise ValueError(f"{content!r} is not an estimator")
                check_state(cls, state)
                estimator = object.__new__(cls)
                if issubclass(cls, BaseEstimator):
                    estimator.__setstate__(state)
                else:
                    vars(estimator).update(state)
                return estimator
            case "class":
                return self._class(content)
            case "skops":
                return load_foreign(self.files[content], self.trusted)
            case _ if kind in CONTAINERS:
                return CONTAINERS[kind](map(self, content))
        raise ValueError(f"the file holds an object of an unknown kind, {kind!r}")

    def _class(self, name):
        if name in PLAIN_CLASSES:
            module, _, short = name.partition(":")
            return getattr(import_module(module), short)
        cls = self.classes.get(name) or find_class(name)
        if not isinstance(cls, type):
            raise ValueError(
                f"it contains the class {name!r}, which is not one of skflows: if you trust it, "
                "import the class, and give load the class itself, trusted=[...]"
            )
        return cls

    def _array(self, name):
        return np.lib.format.read_array(io.BytesIO(self.files[name]), allow_pickle=False)


def has_plain_state(cls):
    """Return whether the state of an estimator, or of a splitter, is plain data."""
    name, is_foreign = name_of(cls)
    is_own = hasattr(cls, "_state_is_plain") or not is_foreign
    return name in PLAIN_CLASSES or (is_own and issubclass(cls, BaseEstimator))


def dump_foreign(value, where):
    """Return an object of another library as bytes of skops."""
    name = f"{where}, of type {type(value).__module__}.{type(value).__qualname__},"
    try:
        import skops.io
    except ImportError:
        raise ImportError(
            f"{name} is not part of skflows: saving it needs skops (pip install skops)"
        ) from None
    try:
        return skops.io.dumps(value)
    except Exception as error:  # whatever the object raises
        raise ValueError(f"{name} cannot be saved ({error})") from error


def load_foreign(content, trusted):
    """Return an object from bytes of skops, if it contains trusted types only."""
    try:
        import skops.io
    except ImportError:
        raise ImportError(
            "the file contains estimators of other libraries: loading it needs skops "
            "(pip install skops)"
        ) from None
    unknown = set(skops.io.get_untrusted_types(data=content)) - set(trusted)
    if unknown:
        raise ValueError(
            f"it contains types that are not trusted: {sorted(unknown)}. If you trust them, give "
            "them to load, trusted=[...]"
        )
    return skops.io.loads(content, trusted=list(trusted))
