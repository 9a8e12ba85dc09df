"""Make the standard library cooperative: `monkey.patch_all()`. See docs/monkey.md.

    from gort import monkey
    monkey.patch_all()

It may be called at any time, from anywhere, and again. Builtin functions and methods (`time.sleep`, a lock's
`acquire`) are replaced in place, so that whoever has imported or stored them gets the new ones too. Of what is
replaced by another object, the references in modules, classes, defaults, closures, lists and dicts are found and
replaced; for what remains there is a MonkeyPatchWarning that says where.
"""

from __future__ import annotations

import functools
import gc
import importlib
import sys
import types
import warnings
from collections.abc import Callable
from importlib.machinery import BuiltinImporter, ExtensionFileLoader
from typing import Any

from gort._core import _runtime
from gort._core._runtime import RLock

__all__ = ["MonkeyPatchWarning", "is_patched", "patch_all"]

# Each part's modules, in the order in which they are patched. What such a module may have:
#   _PATCHES   {standard module: {name: replacement}}
#   _in_place  () -> [(builtin function or method, replacement, whether in plain threads too)]
#   _METHODS   [(class, name, function)]
#   _patched   () -> None or a warning, called when it is done
_PARTS: dict[str, tuple[str, ...]] = {
    "os": ("gort._os",),
    "time": ("gort._time",),
    "signal": ("gort._signal",),
    "threading": ("gort.threading", "gort._sqlite"),
    "queue": ("gort.queue",),
    "select": ("gort.polling", "gort.selectors"),
    "socket": ("gort.socket",),
    "ssl": ("gort.ssl",),
    "subprocess": ("gort.subprocess",),
}
_done: set[str] = set()
_lock: Any = RLock()


class MonkeyPatchWarning(RuntimeWarning):
    """Something of the standard library is still in use unpatched."""


def patch_all(
    *,
    socket: bool = True,
    ssl: bool = True,
    time: bool = True,
    threading: bool = True,
    queue: bool = True,
    select: bool = True,
    subprocess: bool = True,
    os: bool = True,
    signal: bool = True,
) -> None:
    """Make these parts of the standard library cooperative, for the whole process; what is so already, stays so.

    Raises TypeError for an argument that is no bool, before anything is patched. Where a part cannot be patched
    completely, it is as far as it can, and a MonkeyPatchWarning says what is left. May park, if another
    goroutine is just patching.
    """
    wanted = {
        "socket": socket, "ssl": ssl, "time": time, "threading": threading, "queue": queue, "select": select,
        "subprocess": subprocess, "os": os, "signal": signal,
    }  # fmt: skip
    for name, value in wanted.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be a bool, not {value!r}")
    if not _runtime._is_home():
        raise RuntimeError("patch_all() must be called in the main interpreter")
    with _lock:
        parts = [part for part in _PARTS if wanted[part] and part not in _done]
        # All imports come first: what fails, fails before anything is patched.
        modules = {part: [importlib.import_module(name) for name in _PARTS[part]] for part in parts}
        replaced: list[tuple[object, object, str]] = []
        for part in parts:
            for module in modules[part]:
                replaced += _patch(module)
            _done.add(part)
        if replaced:
            _replace_references(replaced)


def is_patched(name: str) -> bool:
    """Whether a part, named as the argument of `patch_all()` is, has been patched. ValueError for another name."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    if name not in _PARTS:
        raise ValueError(f"name must be one of {', '.join(sorted(_PARTS))}, not {name!r}")
    return name in _done


def _warn(text: str) -> None:
    warnings.warn(f"gort.monkey: {text}", MonkeyPatchWarning, stacklevel=5)


def _patch(module: types.ModuleType) -> list[tuple[object, object, str]]:
    """Apply what the module has; (old, new, name) of what may be referred to elsewhere."""
    replaced: list[tuple[object, object, str]] = []
    in_place: Callable[[], list[tuple[Any, Any, bool]]] | None = getattr(module, "_in_place", None)
    for old, new, everywhere in in_place() if in_place else ():
        if not _runtime._replace(old, new, everywhere):
            _warn(f"{getattr(old, '__qualname__', old)} cannot be replaced in place")
    patches: dict[str, dict[str, object]] = getattr(module, "_PATCHES", {})
    for target_name, names in patches.items():
        target = importlib.import_module(target_name)
        for name, new in names.items():
            old = getattr(target, name, None)
            if old is new:
                continue
            setattr(target, name, new)
            if isinstance(old, type) or callable(old):
                replaced.append((old, new, f"{target_name}.{name}"))
    for owner, name, new in getattr(module, "_METHODS", ()):
        functools.update_wrapper(new, getattr(owner, name))
        setattr(owner, name, new)
    done: Callable[[], str | None] | None = getattr(module, "_patched", None)
    if done is not None and (text := done()) is not None:
        _warn(text)
    return replaced


# ---- references ---------------------------------------------------------------------
def _is_ours(name: object) -> bool:
    return isinstance(name, str) and (name == "gort" or name.startswith("gort."))


def _is_extension(module: types.ModuleType) -> bool:
    """Of C: it keeps what it is made of, and others may need that."""
    loader = getattr(module, "__loader__", None)
    return isinstance(loader, ExtensionFileLoader) or (loader is BuiltinImporter and module.__name__ != "__main__")


def _replace_references(replaced: list[tuple[object, object, str]]) -> None:
    """Have all who refer to an old object refer to the new one, and warn of those who cannot be made to."""
    new_of = {id(old): (old, new, name) for old, new, name in replaced}

    def new(value: object) -> Any:
        found = new_of.get(id(value))
        return found[1] if found is not None and found[0] is value else None

    untouched = {id(new_of), *map(id, new_of.values()), id(replaced), *map(id, replaced)}
    for module in list(sys.modules.values()):
        if not isinstance(module, types.ModuleType):
            continue
        if _is_ours(module.__name__):
            # Ours need what they are made of.
            untouched.update(id(v) for v in vars(module).values() if isinstance(v, dict | list | tuple))
        if _is_ours(module.__name__) or _is_extension(module):
            untouched.add(id(vars(module)))
            continue
        for name, value in list(vars(module).items()):
            if id(value) in new_of and (other := new(value)) is not None:
                setattr(module, name, other)
    for o in gc.get_objects():
        if isinstance(o, type):
            if not _is_ours(o.__module__):
                _in_class(o, new)
        elif type(o) is types.FunctionType and (o.__defaults__ or o.__kwdefaults__ or o.__closure__):
            if _is_ours(o.__module__):
                untouched |= {id(o.__defaults__), id(o.__kwdefaults__)}
            else:
                _in_function(o, new)
    fixed: list[tuple[Any, str]] = []
    for holder in gc.get_referrers(*[old for old, _, _ in replaced]):
        if id(holder) not in untouched:
            for old, other, name in replaced:
                _in_holder(holder, old, other, name, new_of, fixed)
    if fixed:
        _warn_of(fixed)


def _in_class(owner: type, new: Callable[[object], Any]) -> None:
    for name, value in list(vars(owner).items()):
        if isinstance(value, staticmethod | classmethod):
            other = new(value.__func__)
            if other is not None:
                other = type(value)(other)
        else:
            other = new(value)
        if other is not None:
            try:
                setattr(owner, name, other)
            except (TypeError, AttributeError):
                _warn(f"{owner.__module__}.{owner.__qualname__}.{name} cannot be replaced")


def _in_function(f: types.FunctionType, new: Callable[[object], Any]) -> None:
    if f.__defaults__ and any(new(v) is not None for v in f.__defaults__):
        f.__defaults__ = tuple(v if new(v) is None else new(v) for v in f.__defaults__)
    for name, value in list((f.__kwdefaults__ or {}).items()):
        if new(value) is not None:
            f.__kwdefaults__[name] = new(value)  # type: ignore[index]
    for variable, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
        if variable == "__class__":
            continue  # of super(): the class that the function stands in
        try:
            other = new(cell.cell_contents)
        except ValueError:
            continue  # empty
        if other is not None:
            cell.cell_contents = other


def _in_holder(
    holder: Any, old: object, other: Any, name: str, new_of: dict[int, Any], fixed: list[tuple[Any, str]]
) -> None:
    """What refers to it that is neither a module, nor a class, nor a function; `fixed` gets what cannot be changed."""
    if isinstance(holder, types.FrameType | types.CellType | types.ModuleType):
        return  # local variables: of whoever calls patch_all(), and of what runs meanwhile
    if isinstance(holder, dict):
        for key, value in list(holder.items()):
            if value is old and not (isinstance(key, str) and _is_ours(holder.get("__name__"))):
                holder[key] = other
    elif isinstance(holder, list):
        for i, value in enumerate(holder):
            if value is old:
                holder[i] = other
    elif isinstance(holder, functools.partial):
        if holder.func is old:
            holder.__setstate__((other, holder.args, holder.keywords, holder.__dict__))  # type: ignore[attr-defined]
    elif isinstance(holder, type):
        if old in holder.__bases__ and not _is_ours(holder.__module__) and id(holder) not in new_of:
            _rebase(holder, old, other, name)
    elif isinstance(holder, tuple | set | frozenset) and any(v is old for v in holder):
        fixed.append((holder, name))


def _rebase(derived: type, old: object, other: type, name: str) -> None:
    if issubclass(derived, other):
        return
    try:
        derived.__bases__ = tuple(other if b is old else b for b in derived.__bases__)
    except TypeError:
        _warn(f"class {derived.__module__}.{derived.__qualname__} derives from the unpatched {name}")


def _warn_of(fixed: list[tuple[Any, str]]) -> None:
    """Tell of tuples and sets, which cannot be changed, by whoever has them."""
    mine = {id(fixed), *map(id, fixed)}
    for r in gc.get_referrers(*[holder for holder, _ in fixed]):
        if id(r) in mine or isinstance(r, list | tuple | types.FrameType | types.CodeType):
            continue  # nobody that could be named; constants
        if isinstance(r, type | types.GenericAlias | types.UnionType) or type(r).__module__ == "typing":
            continue  # bases; type hints
        for holder, name in fixed:
            if isinstance(r, dict):
                owner = r.get("__name__")
                if not isinstance(owner, str) or _is_ours(owner) or all(v is not holder for v in r.values()):
                    continue
                where = f"module {owner}"
            elif isinstance(r, types.FunctionType) and r.__defaults__ is not holder:
                continue  # annotations
            elif all(x is not holder for x in gc.get_referents(r)):
                continue
            else:
                where = f"a {type(r).__module__}.{type(r).__qualname__}"
            _warn(f"{name} is still used unpatched by a {type(holder).__name__} of {where}")
