"""Fingerprints, which identify a fit by its estimator, parameters and data."""

import hashlib
import re
from numbers import Number

import numpy as np

# Parameters that decide how long a fit takes or what it prints, not what it trains.
NEUTRAL = {"n_jobs", "time_limit", "verbose"}
VALUES_AT_ONCE = 2**20  # of an array, which may be mapped from a file
MAX_SHOWN = 40  # characters of a parameter in an error
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def fingerprint(*values):
    """Return a hash of values: numbers, arrays, tensors, tables, estimators and containers.

    Functions are identified by name.
    """
    digest = hashlib.sha256()
    for part in _parts(values):
        digest.update(part)
    return digest.hexdigest()[:32]


def is_neutral(name):
    """Return whether a parameter, of an estimator or of one inside, does not change the result."""
    return name.rpartition("__")[2] in NEUTRAL


def _parts(value):
    """Yield the bytes that describe a value."""
    cls = type(value).__qualname__
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bytes | Number):
        yield f"{value!r};".encode()
    elif isinstance(value, np.random.RandomState):
        yield from _parts(value.get_state())
    elif isinstance(value, list | tuple):
        yield f"{len(value)} items;".encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, set | frozenset):
        yield from _parts(sorted(value, key=repr))
    elif isinstance(value, dict):
        yield f"{len(value)} pairs;".encode()
        for key in sorted(value, key=repr):
            yield from _parts((key, value[key]))
    elif isinstance(value, type):
        yield cls.encode()
    elif hasattr(value, "get_params"):
        parameters = value.get_params(deep=False)
        relevant = {name: item for name, item in parameters.items() if not is_neutral(name)}
        yield from _parts((cls, relevant))
    elif hasattr(value, "columns") and hasattr(value, "dtypes"):  # of pandas or polars
        yield from _parts([str(name) for name in value.columns])
        for name in value.columns:
            yield from _parts(np.asarray(value[name]))
    elif hasattr(value, "detach"):
        yield from _parts(value.detach().cpu().numpy())
    elif hasattr(value, "__array__"):
        yield from _array_parts(np.asarray(value))
    elif vars_of := getattr(value, "__dict__", None):
        yield from _parts((cls, getattr(value, "__qualname__", ""), vars_of))
    else:
        yield ADDRESS.sub("", repr(value)).encode()


def _array_parts(array):
    yield f"{array.dtype.str} {array.shape};".encode()
    if not array.ndim:
        yield repr(array.item()).encode()
        return
    step = max(1, VALUES_AT_ONCE * len(array) // max(1, array.size))
    for start in range(0, len(array), step):
        some = array[start : start + step]
        yield repr(some.tolist()).encode() if array.dtype == object else some.tobytes()


def description(estimator, data):
    """Return what identifies a fit, as JSON can hold it: parts with a text and a fingerprint.

    Parameters
    ----------
    estimator : estimator
        The estimator.
    data : dict
        What is given to its `fit`, by name.
    """
    parts = {"estimator": [type(estimator).__name__] * 2}
    for name, value in sorted(estimator.get_params().items()):
        if is_neutral(name):
            continue
        if hasattr(value, "get_params") and not isinstance(value, type):
            parts[name] = [type(value).__name__] * 2  # its parameters have their own lines
        else:
            text = ADDRESS.sub("", repr(value))
            shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
            parts[name] = [shown, fingerprint(value)]
    for name, value in data.items():
        if value is not None:
            parts[name] = [size_of(value), fingerprint(value)]
    return parts


def size_of(value):
    """Return the shape of an array-like as text, or the length of a list of different lengths."""
    try:
        return f"of shape {np.shape(value)}"
    except ValueError:
        return f"of length {len(value)}"


def differences(before, now):
    """Return how two descriptions differ, as text, or nothing."""
    absent = ["None", ""]
    texts = []
    for name in dict.fromkeys([*before, *now]):
        (old, old_hash), (new, new_hash) = before.get(name, absent), now.get(name, absent)
        if old_hash != new_hash:
            texts.append(f"{name} {old}" + (f", now {new}" if new != old else ", now other values"))
    return "; ".join(texts)
