"""`python -m gort PROGRAM [ARGS]`: run a program with the standard library made cooperative.

    python -m gort program.py ARGS
    python -m gort -m module ARGS
    python -m gort -c "code" ARGS

As `python` does it: PROGRAM may be a file, a directory or zip file with a `__main__.py`, or `-` for standard input.
"""

from __future__ import annotations

import os
import sys
import types
from typing import Any, NoReturn

USAGE = """\
usage: python -m gort [-m MODULE | -c CODE | PROGRAM | -] [ARGUMENT ...]

Run a Python program with goroutines for threads, and a standard library that parks
where it would block. See docs/monkey.md.

  -m MODULE      run a module, as `python -m MODULE` does
  -c CODE        run the code, as `python -c CODE` does
  PROGRAM        a file, or a directory or zip file with a __main__.py; -: standard input
  -h, --help     print this
  -V, --version  print the versions
"""


def _usage(text: str) -> NoReturn:
    sys.stderr.write(f"python -m gort: {text}\n{USAGE}")
    raise SystemExit(2)


def _new_main() -> dict[str, Any]:
    """The module that the program runs in, and that stays `__main__`."""
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=sys.modules["builtins"], __annotations__={})
    sys.modules["__main__"] = main
    return main.__dict__


def _path0(path: str) -> None:
    if not sys.flags.safe_path:
        sys.path[0] = path


def _program(args: list[str]) -> Any:
    """Set up all as `python` does; a function that runs the program."""
    import runpy

    run: Any = runpy
    if not args:
        _usage("no program is given")
    first, rest = args[0], args[1:]
    if first in ("-h", "--help"):
        sys.stdout.write(USAGE)
        raise SystemExit(0)
    if first in ("-V", "--version"):
        import gort

        sys.stdout.write(f"gort {gort.__version__} (Python {sys.version.split()[0]})\n")
        raise SystemExit(0)
    for option, what in ("-m", "module"), ("-c", "code"):
        if first.startswith(option):
            given = [first[2:]] if len(first) > 2 else rest[:1]
            rest = rest if len(first) > 2 else rest[1:]
            if not given:
                _usage(f"{option} needs a {what}")
            if option == "-m":
                sys.argv[:] = ["-m", *rest]
                _new_main()
                return lambda: run._run_module_as_main(given[0])
            sys.argv[:] = ["-c", *rest]
            _path0("")
            return _code(given[0].encode("utf-8", "surrogateescape"), "<string>", None)
    if first == "-":
        sys.argv[:] = args
        _path0("")
        return _code(sys.stdin.buffer.read(), "<stdin>", None)
    if first.startswith("-"):
        _usage(f"unknown option {first}")
    sys.argv[:] = args
    if os.path.isdir(first) or _is_zip(first):
        if sys.flags.safe_path:
            sys.path.insert(0, os.path.abspath(first))
        else:
            sys.path[0] = os.path.abspath(first)
        _new_main()
        return lambda: run._run_module_as_main("__main__", False)
    try:
        with open(first, "rb") as f:
            source = f.read()
    except OSError as e:
        sys.stderr.write(f"{sys.executable}: can't open file {os.path.abspath(first)!r}: {e}\n")
        raise SystemExit(2) from None
    _path0(os.path.dirname(os.path.realpath(first)))
    return _code(source, first, first)


def _is_zip(path: str) -> bool:
    try:
        from zipimport import ZipImportError, zipimporter
    except ImportError:
        return False
    try:
        zipimporter(path)
    except ZipImportError:
        return False
    return True


def _code(source: bytes, name: str, path: str | None) -> Any:
    names = _new_main()
    if path is not None:
        from importlib.machinery import SourceFileLoader

        names.update(__file__=os.path.abspath(path), __cached__=None)
        names["__loader__"] = SourceFileLoader("__main__", os.path.abspath(path))
    else:
        from importlib.machinery import BuiltinImporter

        names["__loader__"] = BuiltinImporter
        if name == "<stdin>":
            names["__file__"] = name

    def run() -> None:
        exec(compile(source, name if path is None else os.path.abspath(path), "exec", dont_inherit=True), names)

    if name == "<string>":
        import linecache

        lines = source.decode("utf-8", "replace").splitlines(True)
        linecache.cache[name] = (len(source), None, lines, name)
    return run


def _strip(e: BaseException) -> None:
    """Leave the frames of this module and of runpy out of the traceback."""
    tb = e.__traceback__
    while tb is not None and (
        tb.tb_frame.f_globals is globals() or tb.tb_frame.f_code.co_filename in ("<frozen runpy>", "<frozen gort>")
    ):
        tb = tb.tb_next
    e.__traceback__ = tb


def main() -> None:
    from gort import monkey

    monkey.patch_all()
    run = _program(sys.argv[1:])
    try:
        run()
    except SystemExit:
        raise
    except BaseException as e:
        _strip(e)
        sys.excepthook(type(e), e, e.__traceback__)
        sys.excepthook = lambda *_: None  # it has been told; what CPython makes of it is the exit status
        raise


if __name__ == "__main__":
    main()
