"""Native goroutines: C functions on all cores, without the GIL.

A C function `void f(void *)` becomes a goroutine with `go(f, arg)`. In it, the
functions of `gort.h` are to be used (`gort.get_include()`), and no Python. It
meets Python goroutines on typed channels (`Chan.ptr` is such a channel's
`gort_chan *`).

A shared library that calls gort.h's functions finds them in the extension
module: load `lib_path()` with RTLD_GLOBAL before it (`load_global()` does so).
"""

from __future__ import annotations

import ctypes
from typing import Any

from gort._core import _runtime
from gort._core._runtime import Chan, NativeGoroutine
from gort._core._runtime import num_native as num_goroutine

__all__ = ["NativeGoroutine", "go", "lib_path", "load_global", "num_goroutine"]


def lib_path() -> str:
    """The file of the extension module, which exports the functions of `gort.h`."""
    path = _runtime.__file__
    assert path is not None
    return path


def load_global() -> ctypes.CDLL:
    """Make the functions of `gort.h` visible to libraries that are loaded from now on."""
    return ctypes.CDLL(lib_path(), mode=ctypes.RTLD_GLOBAL)


def _cffi_address(obj: object) -> int | None:
    """The address that a cffi pointer holds; None if `obj` is none."""
    try:
        import _cffi_backend
    except ImportError:
        return None
    ffi = _cffi_backend.FFI()
    if not isinstance(obj, ffi.CData):
        return None
    try:
        return int(ffi.cast("uintptr_t", obj))
    except TypeError:
        return None


def _function_address(cfunc: object) -> int:
    if isinstance(cfunc, int) and not isinstance(cfunc, bool):
        address: int | None = cfunc
    elif isinstance(cfunc, ctypes._CFuncPtr):  # type: ignore[attr-defined]
        address = ctypes.cast(cfunc, ctypes.c_void_p).value
    else:
        address = _cffi_address(cfunc)
    if address is None:
        raise TypeError(f"cfunc must be a ctypes or cffi function pointer or an address, not {cfunc!r}")
    if not 0 < address < 1 << 64:
        raise ValueError(f"cfunc must be the address of a function, not {address:#x}")
    return address


def _argument(arg: object) -> int:
    if isinstance(arg, int) and not isinstance(arg, bool):
        value: int | None = arg
    elif isinstance(arg, Chan):
        value = arg.ptr
    elif isinstance(arg, ctypes._Pointer | ctypes.c_void_p | ctypes.c_char_p):
        value = ctypes.cast(arg, ctypes.c_void_p).value or 0
    elif isinstance(arg, ctypes._SimpleCData | ctypes.Structure | ctypes.Union | ctypes.Array):
        value = ctypes.addressof(arg)
    else:
        value = _cffi_address(arg)
    if value is None:
        raise TypeError(f"arg must be an int, a ctypes object, a cffi pointer or a typed Chan, not {arg!r}")
    if not 0 <= value < 1 << 64:
        raise OverflowError(f"arg does not fit a pointer: {value}")
    return value


def go(cfunc: Any, arg: Any = 0) -> NativeGoroutine:
    """Run `cfunc(arg)` as a native goroutine and return its handle. Does not park.

    `cfunc` is a `void (*)(void *)`: a ctypes or cffi function pointer, or an
    address. `arg` is an int, a pointer, a ctypes object (its address) or a typed
    Chan (its `gort_chan *`). Both are kept alive until the function returned.
    Raises TypeError, ValueError or OverflowError for others, MemoryError if
    there is no stack or thread for it.
    """
    return _runtime.native_start(_function_address(cfunc), _argument(arg), (cfunc, arg))
