# importlock.pxi - importlib and its locks, for goroutines.
#
# CPython knows the owner of a module's lock, and of the one lock of them all (`_imp.acquire_lock`), by its OS
# thread. A goroutine may change that while it holds one: so importlib gets a `_thread` of ours, and `_imp` that lock.

import _frozen_importlib
import _imp


class _ThreadIdentity:
    """`_thread` as importlib sees it: a goroutine is somebody of its own."""

    def __getattr__(self, name):
        return getattr(_thread, name)

    @staticmethod
    def get_ident():
        return whoami()


class _ImportLock:
    """The lock of `_imp.acquire_lock()` and its like: it belongs to a goroutine or a plain thread.

    It is held for some lines of importlib's, never while a module runs. Who waits
    does so in C: a kill in there would be lost where importlib calls it from a
    weak reference's callback.
    """

    def __init__(self):
        self._lock = _thread.allocate_lock()
        self._owner = 0
        self._count = 0

    def acquire_lock(self):
        me = whoami()
        if self._owner != me:
            self._lock.acquire()
            self._owner = me
        self._count += 1

    def release_lock(self):
        if self._owner != whoami():
            raise RuntimeError("not holding the import lock")
        self._count -= 1
        if self._count == 0:
            self._owner = 0
            self._lock.release()

    def lock_held(self):
        return self._count > 0

    def after_fork(self):
        """In the child, where nobody else is left; the parent acquired it before the fork."""
        self._lock._at_fork_reinit()
        self._owner = 0
        self._count = 0


def _replace_import_locks():
    lock = _ImportLock()
    _frozen_importlib._thread = _ThreadIdentity()
    for name in ("acquire_lock", "release_lock", "lock_held"):
        setattr(_imp, name, getattr(lock, name))
    _os.register_at_fork(before=lock.acquire_lock, after_in_parent=lock.release_lock, after_in_child=lock.after_fork)
