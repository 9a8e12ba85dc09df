"""Classes and functions of the standard library over again, on other primitives.

The code is the standard library's own; what its globals name is ours. A class made so derives from the one it was
made from, so that `isinstance` holds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any


def function(f: FunctionType, names: dict[str, Any], module: str) -> FunctionType:
    """`f`, with `names` for its globals."""
    made = FunctionType(f.__code__, names, f.__name__, f.__defaults__, f.__closure__)
    made.__kwdefaults__ = f.__kwdefaults__
    made.__doc__ = f.__doc__
    made.__qualname__ = f.__qualname__
    made.__annotations__ = dict(f.__annotations__)
    made.__dict__.update(f.__dict__)
    made.__module__ = module
    return made


def cls(old: type, names: dict[str, Any], module: str, **more: object) -> Any:
    """A class that derives from `old` (and from what `names` has for its bases), with its methods over again."""

    home = vars(sys.modules[old.__module__])

    def over(value: object) -> object:
        if isinstance(value, FunctionType) and value.__globals__ is home:  # not what a decorator has made
            return function(value, names, module)
        if isinstance(value, classmethod | staticmethod):
            return type(value)(over(value.__func__))  # type: ignore[arg-type]
        if isinstance(value, property):
            made: Any = property
            return made(over(value.fget), over(value.fset), over(value.fdel), value.__doc__)
        return value

    kept = {"__dict__", "__weakref__", "__slots__", "__static_attributes__", "__firstlineno__"}
    body = {name: over(value) for name, value in vars(old).items() if name not in kept}
    body.update(more, __module__=module)
    bases = tuple(names[b.__name__] for b in old.__bases__ if names.get(b.__name__, b) is not b)
    return type(old)(old.__name__, (old, *bases), body)


def module(old: ModuleType, **other: object) -> ModuleType:
    """A module like `old`, but for some names."""
    made = ModuleType(old.__name__, old.__doc__)
    made.__dict__.update({name: value for name, value in vars(old).items() if not _of_the_import(name)}, **other)
    return made


def _of_the_import(name: str) -> bool:
    return name in ("__spec__", "__loader__", "__builtins__")


def names(old: ModuleType, module: str, other: Mapping[str, object]) -> dict[str, Any]:
    """The globals for what is made over again of `old`."""
    return {**vars(old), "__name__": module, **other}
