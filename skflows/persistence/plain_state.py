"""Plain data in place of torch modules and helper objects, and back.

The state of a fitted estimator then consists of numbers, strings, arrays, containers and other
estimators. It names classes by their short name, so a class may move to another module.
"""

import importlib
import pkgutil
import sys
from functools import cache

# Raised whenever the state of an older version would be misread.
FORMAT = 21
CLASS, NUMBER, SHARED = "$class", "$number", "$shared"
PACKAGE = __name__.split(".")[0]
TORCH = "torch.nn."
# Rooms whose classes a model may consist of.
ROOMS = (
    "nn",
    "bijections",
    "columns",
    "preprocessing",
    "calibration",
    "density",
    "ensemble",
    "variational",
    "compression",
    "conditional",
    "table",
    "graphs",
    "sets",
    "outlier",
)


def package_version():
    """Return the version of this package."""
    return sys.modules[PACKAGE].__version__


def name_of(cls):
    """Return the name under which a class is stored, and whether it is foreign."""
    if cls.__module__.startswith(f"{PACKAGE}."):
        return cls.__name__, False
    from torch import nn

    if hasattr(nn, cls.__name__) and getattr(nn, cls.__name__) is cls:
        return TORCH + cls.__name__, False
    return f"{cls.__module__}:{cls.__qualname__}", True


@cache
def find_class(name):
    """Return the class of this package or of torch that is stored under a name, or None."""
    if name.startswith(TORCH):
        from torch import nn

        layer = getattr(nn, name.removeprefix(TORCH), None)
        return layer if isinstance(layer, type) and issubclass(layer, nn.Module) else None
    for room in ROOMS:
        parent = importlib.import_module(f"{PACKAGE}.{room}")
        for info in pkgutil.iter_modules(parent.__path__, f"{parent.__name__}."):
            cls = vars(importlib.import_module(info.name)).get(name)
            if isinstance(cls, type) and cls.__module__ == info.name:
                return cls
    return None


class Flattener:
    """Replace torch modules, tensors and helper objects by plain data.

    Attributes
    ----------
    foreign_classes : dict of str to type
        The classes met that are not of this package, such as a user's bijections.
    """

    def __init__(self):
        self.foreign_classes = {}
        self._seen = {}  # tensors and modules, which may occur more than once

    def __call__(self, value):
        import torch
        from torch import nn

        if isinstance(value, dict):
            return {key: self(item) for key, item in value.items()}
        if type(value) in (list, tuple, set):
            return type(value)(map(self, value))
        if isinstance(value, torch.Tensor | nn.Module):
            if id(value) in self._seen:
                return {SHARED: self._seen[id(value)][0]}
            number = len(self._seen)
            self._seen[id(value)] = number, value  # kept, so that no other object gets its id
            plain = self._tensor if isinstance(value, torch.Tensor) else self._module
            return plain(value) | {NUMBER: number}
        cls = type(value)
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return {CLASS: self._name(cls), "state": self(value._asdict())}
        is_own = cls.__module__.startswith(f"{PACKAGE}.")
        # Estimators, and callbacks, which belong to the process, stay as they are.
        if is_own and not (hasattr(cls, "get_params") or hasattr(cls, "on_fit_task_end")):
            return {CLASS: self._name(cls), "state": self(vars(value))}
        return value

    def _name(self, cls):
        name, is_foreign = name_of(cls)
        if is_foreign:
            self.foreign_classes[name] = cls
        return name

    def _tensor(self, tensor):
        from torch import nn

        kind = "Parameter" if isinstance(tensor, nn.Parameter) else "Tensor"
        array = tensor.detach().cpu().numpy()
        return {CLASS: kind, "value": array, "requires_grad": tensor.requires_grad}

    def _module(self, module):
        empty = vars(_empty_module())
        attributes = {name: value for name, value in vars(module).items() if name not in empty}
        # Hooks are functions, which only pickles can hold.
        attributes |= {
            name: vars(module)[name] for name in empty if "hooks" in name and vars(module)[name]
        }
        return {
            CLASS: self._name(type(module)),
            "state": self(attributes),
            "training": module.training,
            "parameters": self(module._parameters),
            "buffers": self(module._buffers),
            "not_stored_by_torch": sorted(module._non_persistent_buffers_set),
            "modules": self(module._modules),
        }


def _empty_module():
    from torch import nn

    return nn.Module()


class Restorer:
    """Undo what `Flattener` did.

    Parameters
    ----------
    foreign_classes : dict of str to type
        Classes of other packages, by name.
    """

    def __init__(self, foreign_classes):
        self.foreign_classes = foreign_classes
        self._seen = {}

    def __call__(self, value):
        if type(value) in (list, tuple, set):
            return type(value)(map(self, value))
        if not isinstance(value, dict):
            return value
        if SHARED in value:
            return self._seen[value[SHARED]]
        if CLASS not in value:
            return {key: self(item) for key, item in value.items()}
        if value[CLASS] in ("Parameter", "Tensor"):
            return self._tensor(value)
        cls = self._class(value[CLASS])
        if "modules" in value:
            return self._module(cls, value)
        state = self._state(cls, value)
        if hasattr(cls, "_fields"):
            return cls(**state)
        restored = object.__new__(cls)
        vars(restored).update(state)
        return restored

    def _class(self, name):
        cls = self.foreign_classes.get(name) or find_class(name)
        if not isinstance(cls, type):
            raise ValueError(f"the model holds an object of an unknown class, {name!r}")
        return cls

    def _state(self, cls, value):
        state = self(value["state"])
        check_state(cls, state)
        return state

    def _tensor(self, value):
        import torch
        from torch import nn

        array = value["value"]
        # A file that is mapped into memory is not writable.
        tensor = torch.from_numpy(array) if array.flags.writeable else torch.tensor(array)
        if value[CLASS] == "Parameter":
            tensor = nn.Parameter(tensor, requires_grad=value["requires_grad"])
        self._seen[value[NUMBER]] = tensor
        return tensor

    def _module(self, cls, value):
        import torch
        from torch import nn

        module = object.__new__(cls)
        self._seen[value[NUMBER]] = module
        vars(module).update(vars(_empty_module()))
        vars(module).update(self._state(cls, value))
        module.training = value["training"]
        module._parameters.update(self._parts(value["parameters"], nn.Parameter))
        module._buffers.update(self._parts(value["buffers"], torch.Tensor))
        module._non_persistent_buffers_set.update(value["not_stored_by_torch"])
        module._modules.update(self._parts(value["modules"], nn.Module))
        return module

    def _parts(self, value, kind):
        """Return the parts of a module, which torch takes to be of a kind, or None."""
        parts = self(value)
        if not all(part is None or isinstance(part, kind) for part in parts.values()):
            raise ValueError(f"a module has a part that is no {kind.__name__}")
        return parts


def check_state(cls, state):
    """Raise an error for a state that hides methods of a class, which an attacker may have made."""
    hidden = [name for name in state if callable(getattr(cls, name, None)) or name[:2] == "__"]
    if type(state) is not dict or (hidden and not hasattr(cls, "_fields")):
        raise ValueError(f"the state of a {cls.__name__} is not one: it sets {hidden}")


def check_format(stamp, what):
    """Raise an error if a state has another format than this version reads."""
    if stamp["format"] != FORMAT:
        stored, now = stamp["version"], package_version()
        remedy = "fit it again"
        if stored == now:  # before a release, formats change within a version
            stored = f"an older or newer state of {stored}"
        else:
            remedy += ", or load it with the version that stored it"
        raise ValueError(
            f"this {what} was stored by skflows {stored} in format {stamp['format']}; "
            f"skflows {now} reads format {FORMAT}: {remedy}"
        )
