"""The file format of fitted estimators, which runs no code when it is loaded.

A file is a zip archive: ``model.json`` with parameters and fitted attributes, one ``.npy`` file for
each array, and ``checksum`` with the SHA-256 of the others.
"""

import hashlib
import io
import json
import math
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

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
    "sklearn.linear_model._logistic:LogisticRegression",
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
# Bytes of the largest array without values, if its axes of length 0 had length 1.
LARGEST_EMPTY = 2**20
BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
PLACES = {"MT19937": 624, "Philox": 4}  # numbers that a bit generator has drawn in advance


def save(estimator, path):
    """Write a fitted estimator to a file (see `PersistenceMixin.save`)."""
    write(estimator, type(estimator).__name__, path)


def write(value, where, path):
    """Write an object to a file; errors say where in it something cannot be written."""
    encoder = Encoder()
    stamp = {"format": FORMAT, "version": package_version(), "model": encoder(value, where)}
    files = {MODEL: json.dumps(stamp, allow_nan=False).encode()} | encoder.files
    files[CHECKSUM] = checksum(files).encode()
    whole = pack(files)
    with nullcontext(path) if hasattr(path, "write") else replace_file(path) as file:
        file.write(whole)


def load(path: str | PathLike[str] | BinaryIO, *, trusted: Sequence[str | type] = ()) -> Any:
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
        The fitted estimator. Its scores equal the stored estimator's, bit by bit.

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
        files = unpack(content)
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


def pack(files):
    """Return a zip archive of files, by name, which are not compressed."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in files.items():
            # With a fixed date: saving a model again gives the same file.
            archive.writestr(zipfile.ZipInfo(name), content)
    return whole.getvalue()


def unpack(content):
    """Return the files of a zip archive that `pack` has made, by name.

    It refuses compressed files, because a small archive could hold large ones.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        is_compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if is_compressed or sum(member.file_size for member in members) > len(content):
            raise ValueError("its members are compressed, or larger than the file")
        return {member.filename: archive.read(member) for member in members}


def read_array(content):
    """Return the array of an ``.npy`` file, which states no more than it holds."""
    file = io.BytesIO(content)
    array = np.lib.format.read_array(file, allow_pickle=False)
    if file.tell() < len(content):
        raise ValueError(f"an array of shape {array.shape} has more values than its shape")
    check_shape(array)
    return array


def check_shape(array):
    """Raise an error for an array of few bytes and many rows, over which a model would loop."""
    size = math.prod(max(length, 1) for length in array.shape) * array.itemsize
    if not array.itemsize or size > max(array.nbytes, LARGEST_EMPTY):
        raise ValueError(f"an array has shape {array.shape} and type {array.dtype}, but no values")


def checksum(files):
    """Return the SHA-256 of files, by name."""
    digest = hashlib.sha256()
    for name in sorted(files):
        for part in (name.encode(), files[name]):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


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
        check_shape(array)
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
        restored = self._object(kind[1:], value)
        if "@number" in value:
            if kind[1:] in ("dict", *CONTAINERS):  # nested ones would grow without bounds
                raise ValueError(f"the file holds the same {kind[1:]} more than once")
            self._seen[value["@number"]] = restored
        return restored

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
                array = array.reshape(value["shape"])
                check_shape(array)
                return array
            case "random_state":
                state = np.random.RandomState()
                state.set_state(checked_bits(self(content)))
                return state
            case "generator":
                state = checked_bits(self(content))
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
                return load_foreign(self._file(content), self.trusted)
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
        return read_array(self._file(name))

    def _file(self, name):
        # Once only: many arrays of one file would take more memory than the file.
        if name not in self.files:
            raise ValueError(f"it lacks the file {name!r}, or holds it more than once")
        return self.files.pop(name)


def checked_bits(state):
    """Return the state of a bit generator, if its place is one: numpy reads memory there."""
    name = state["bit_generator"]
    if name in PLACES:
        place = state["buffer_pos"] if "buffer_pos" in state else state["state"]["pos"]
        if not 0 <= place <= PLACES[name]:
            raise ValueError(f"the random state of a {name} has the place {place}")
    return state


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
        return repack(skops.io.dumps(value))
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
    check_foreign(content)
    try:
        unknown = set(skops.io.get_untrusted_types(data=content)) - set(trusted)
        if unknown:
            raise ValueError(
                f"it contains types that are not trusted: {sorted(unknown)}. If you trust them, "
                "give them to load, trusted=[...]"
            )
        loaded = skops.io.loads(content, trusted=list(trusted))
    except ImportError as error:  # of what the file names
        raise ValueError(error) from error
    if isinstance(loaded, dict) or type(loaded) in (list, tuple, set):
        raise ValueError(f"it holds a {type(loaded).__name__} as an object of another library")
    return loaded


def repack(content):
    """Return a zip archive without compression, also of sparse matrices, which are archives."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return pack({name: repack(file) if is_archive(file) else file for name, file in files.items()})


def check_foreign(content):
    """Raise an error for an archive of skops, or one in it, that needs more memory than it has."""
    files = unpack(content)
    for file in files.values():
        if is_archive(file):
            check_foreign(file)
        elif file.startswith(np.lib.format.MAGIC_PREFIX):
            read_array(file)
    owners = defaultdict(set)

    def note(node):
        if isinstance(node.get("file"), str):
            owners[node["file"]].add(node["__id__"])
        return node

    json.loads(files.get("schema.json", "{}"), object_hook=note)
    if any(len(ids) > 1 for ids in owners.values()):  # skops reads the file for each
        raise ValueError("it holds the same file more than once")


def is_archive(content):
    """Return whether bytes are a zip archive."""
    return zipfile.is_zipfile(io.BytesIO(content))
