# cython: language_level=3, binding=False, boundscheck=False, wraparound=False
# cython: initializedcheck=False, embedsignature=True, embedsignature.format=clinic
# cython: auto_pickle=False
"""The extension module: thin bindings of the C runtime in csrc/.

One translation unit, so that the classes call each other without attribute
look-ups; a file per topic. The logic stays in csrc/. Users import `gort`,
`gort.sync`, `gort.time`, ... which re-export what stands here.

Everything here runs with the GIL held. A function that may park says so in its
docstring; a parked goroutine may be resumed by another OS thread.
"""
cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.string cimport memset
from gort._core.runtime cimport *

import _queue
import _thread
import os as _os
import sys
import threading as _threading
import time as _time
import types as _types
import weakref as _weakref

include "errors.pxi"
include "waiting.pxi"
include "bubble.pxi"
include "g.pxi"
include "chan.pxi"
include "sync.pxi"
include "atomic.pxi"
include "time.pxi"
include "context.pxi"
include "native.pxi"
include "rate.pxi"
include "singleflight.pxi"
include "errgroup.pxi"
include "rlock.pxi"
include "net.pxi"
include "sock.pxi"
include "importlock.pxi"
include "thread.pxi"
include "life.pxi"

_start_runtime()
