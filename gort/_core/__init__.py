"""The extension module; see `_runtime.pyx`."""
