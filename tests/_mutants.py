"""Files as an attacker would change them: any part of them, with the right checksum."""

import copy
import json

from skflows.persistence.model_file import checksum, pack, unpack

# Values of other types, and references to what is elsewhere, or not there.
MUTANTS = [
    None, True, -1, 10**30, 1e308, "x", "$class", [], [[1]], {}, {"@array": "0.npy"}, {"@same": 0},
    {"@class": "Chain"}, {"$class": "Chain", "state": {}}, {"$shared": 0}, {"@tuple": [1, 2]},
    {"@dict": [[1, 2]]}, {"@float": "nan"},
]  # fmt: skip


def rewrite(path, change):
    """Replace files of an archive of `save`, by name."""
    files = unpack(path.read_bytes())
    del files["checksum"]
    files = change(files)
    path.write_bytes(pack(files | {"checksum": checksum(files).encode()}))


def mutated(value, rng):
    """Return what JSON holds with a value or a key removed or replaced."""
    value = copy.deepcopy(value)
    parent, key = rng.choice(list(places(value)))
    match rng.randrange(4):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[rng.choice(["@x", "$class", "@same", "state"])] = parent.pop(key)
        case _:
            parent[key] = copy.deepcopy(rng.choice(MUTANTS))
    return value


def mutated_files(files, rng):
    """Return the files of an archive with a change in the JSON, or in the head of an array."""
    if rng.random() < 0.2:
        name = rng.choice([name for name in files if name.endswith(".npy")])
        array = bytearray(files[name])
        array[rng.randrange(min(len(array), 128))] = rng.randrange(256)
        return files | {name: bytes(array)}
    stamp = mutated(json.loads(files["model.json"]), rng)
    return files | {"model.json": json.dumps(stamp).encode()}


def places(value):
    """Yield the containers in what JSON holds, and their keys."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])
