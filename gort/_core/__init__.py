"""The extension module; see `_runtime.pyx`."""

import threading

if threading.current_thread() is not threading.main_thread():  # before anything of it is made
    raise RuntimeError("gort must be imported first in the main thread")
