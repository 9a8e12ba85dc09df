"""Errors: Go's `errors` over Python's exceptions, and business errors as the Kratos framework has them.

The tree of an error is the error itself, then, depth first, what its method
`unwrap()` gives (an exception, several, or None), the members of an exception
group, and `__cause__`, what `raise ... from` names. `__context__` is no part of
it: an error that merely came up while another was handled does not wrap that one.

An `Error` says in an HTTP status (`code`) what kind of failure it is, in
`reason` which one, for programs, and in `message`, for people.

>>> from gort import errors
>>> try:
...     try:
...         {}["ada"]
...     except KeyError as e:
...         raise errors.not_found("USER_NOT_FOUND", "no such user") from e
... except errors.Error as e:
...     err = errors.wrap(e, "greeting ada")
>>> errors.is_(err, KeyError), errors.code(err), errors.reason(err)
(True, 404, 'USER_NOT_FOUND')
>>> errors.to_grpc_code(errors.code(err))
<GrpcCode.NOT_FOUND: 5>

Source: Go's errors/wrap.go and errors/join.go; errors/errors.go and
transport/http/status/status.go of github.com/go-kratos/kratos/v2. Nothing here waits.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Any, Self, TypeVar, overload

from gort import context

__all__ = [
    "CLIENT_CLOSED",
    "UNKNOWN_CODE",
    "UNKNOWN_REASON",
    "Error",
    "GrpcCode",
    "WrapError",
    "as_",
    "bad_request",
    "client_closed",
    "code",
    "conflict",
    "forbidden",
    "from_error",
    "from_grpc",
    "from_grpc_code",
    "from_http",
    "gateway_timeout",
    "internal_server",
    "is_",
    "is_bad_request",
    "is_client_closed",
    "is_conflict",
    "is_forbidden",
    "is_gateway_timeout",
    "is_internal_server",
    "is_not_found",
    "is_service_unavailable",
    "is_too_many_requests",
    "is_unauthorized",
    "join",
    "new",
    "not_found",
    "reason",
    "service_unavailable",
    "to_grpc",
    "to_grpc_code",
    "to_http",
    "too_many_requests",
    "unauthorized",
    "unwrap",
    "wrap",
]

_E = TypeVar("_E", bound=BaseException)

CLIENT_CLOSED = 499
"""nginx's status for a client that went away before the answer."""
UNKNOWN_CODE = 500
"""The code of an error that nothing else is known of."""
UNKNOWN_REASON = ""
"""Its reason."""


# ---- the tree ---------------------------------------------------------------


def _error(err: object, name: str = "err") -> BaseException:
    if not isinstance(err, BaseException):
        raise TypeError(f"{name} must be an exception, not {err!r}")
    return err


def _children(err: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    method = getattr(err, "unwrap", None)
    if callable(method):
        inner = method()
        if isinstance(inner, BaseException):
            found.append(inner)
        elif isinstance(inner, Iterable):
            found += [e for e in inner if isinstance(e, BaseException)]
    if isinstance(err, BaseExceptionGroup):
        found += err.exceptions
    if err.__cause__ is not None:
        found.append(err.__cause__)
    return found


def _tree(err: BaseException) -> Iterator[BaseException]:
    """`err` and all below it, each once, in Go's order."""
    seen: dict[int, BaseException] = {}  # holds them: an id must not come up twice
    stack = [err]
    while stack:
        e = stack.pop()
        if id(e) not in seen:
            seen[id(e)] = e
            yield e
            stack += reversed(_children(e))


def is_(err: BaseException | None, target: BaseException | type[BaseException] | None) -> bool:
    """Whether `err` or one in its tree is `target`.

    A class matches its instances. An exception matches itself, what is equal to
    it, and whatever has a method `is_(target)` that says so. None is None only.
    """
    if err is None or target is None:
        return err is target
    _error(err)
    if isinstance(target, type) and issubclass(target, BaseException):
        return any(isinstance(e, target) for e in _tree(err))
    if not isinstance(target, BaseException):
        raise TypeError(f"target must be an exception or an exception class, not {target!r}")
    for e in _tree(err):
        if e is target or e == target:
            return True
        method = getattr(e, "is_", None)
        if callable(method) and method(target):
            return True
    return False


def as_(err: BaseException | None, type: type[_E]) -> _E | None:
    """The first error in the tree of `err` that is a `type`, or None.

    One with a method `as_(type)` may give another in its place, or None.
    """
    if not isinstance(type, _class) or not issubclass(type, BaseException):
        raise TypeError(f"type must be an exception class, not {type!r}")
    if err is None:
        return None
    for e in _tree(_error(err)):
        if isinstance(e, type):
            return e
        method = getattr(e, "as_", None)
        if callable(method) and isinstance(other := method(type), type):
            return other
    return None


_class = type  # which is an argument's name above


def unwrap(err: BaseException | None) -> BaseException | None:
    """What `err` wraps directly, or None: its `unwrap()` if that gives one exception, else `__cause__`.

    The members of a group are not given.
    """
    if err is None:
        return None
    method = getattr(_error(err), "unwrap", None)
    inner = method() if callable(method) else None
    return inner if isinstance(inner, BaseException) else err.__cause__


def join(*errs: BaseException | None) -> BaseExceptionGroup[BaseException] | None:
    """A group of `errs` without the Nones; None if nothing is left.

    An ExceptionGroup, unless there is one among them that is no Exception. Its
    message has each one's text on a line.
    """
    found = [_error(e, "errs") for e in errs if e is not None]
    if not found:
        return None
    return BaseExceptionGroup("\n".join(str(e) for e in found), found)


# ---- errors that begin with a text of their own and end with their cause's ----------


class _Headed(Exception):
    """Its text is made along the chain, when it is asked for: of ten thousand it must neither recurse nor be stored."""

    _no_cause = ""

    def _head(self) -> str:
        raise NotImplementedError

    def __str__(self) -> str:
        parts: list[str] = []
        seen: set[int] = set()
        e: BaseException | None = self
        while isinstance(e, _Headed) and type(e).__str__ is _Headed.__str__:
            if id(e) in seen:
                return "".join([*parts, "..."])
            seen.add(id(e))
            parts.append(e._head())
            last, e = e, e.__cause__
        return "".join([*parts, last._no_cause if e is None else str(e)])


class WrapError(_Headed):
    """What `wrap()` makes: it says `message: ` and then what its cause says."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def _head(self) -> str:
        return self.message if self.__cause__ is None else f"{self.message}: "


def new(text: str) -> Exception:
    """An exception that says `text` and is equal to no other; for `is_()` to know it by."""
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {text!r}")
    return Exception(text)


@overload
def wrap(err: Exception, message: str) -> WrapError: ...
@overload
def wrap(err: None, message: str) -> None: ...
@overload
def wrap(err: Exception | None, message: str) -> WrapError | None: ...
def wrap(err: Exception | None, message: str) -> WrapError | None:
    """An error that says `message: err` and whose cause is `err`, as Go's `fmt.Errorf("message: %w", err)`.

    None for None. TypeError for what is no Exception: an exit or an interrupt
    must stay one.
    """
    if not isinstance(message, str):
        raise TypeError(f"message must be a str, not {message!r}")
    if err is None:
        return None
    if not isinstance(err, Exception):
        raise TypeError(f"err must be an Exception or None, not {err!r}")
    wrapped = WrapError(message)
    wrapped.__cause__ = err
    return wrapped


# ---- business errors ----------------------------------------------------------


def _field(value: object, name: str, cls: type) -> Any:
    if not isinstance(value, cls) or isinstance(value, bool):
        raise TypeError(f"{name} must be {'an int' if cls is int else 'a str'}, not {value!r}")
    return value


def _metadata(value: Mapping[str, str] | None) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"metadata must be a mapping of str to str, not {value!r}")
    for pair in value.items():
        if not all(isinstance(x, str) for x in pair):
            raise TypeError(f"metadata must be a mapping of str to str, but has {pair[0]!r}: {pair[1]!r}")
    return dict(value)


def _restore(cls: type[_E], args: tuple[Any, ...]) -> _E:
    return cls.__new__(cls, *args)


class Error(_Headed):
    """A failure that its receiver, a program, can act on.

    `code` is an HTTP status, `reason` names the failure within it (in capitals:
    "USER_NOT_FOUND"), `message` is for people, `metadata` a mapping of str to
    str. Raises TypeError for other types. For `is_()`, two with the same code
    and reason are the same. Its text is Kratos', with Go's words for no cause
    and for metadata.

    >>> e = Error(409, "NAME_TAKEN", "ada is taken", {"name": "ada"})
    >>> print(e)
    error: code = 409 reason = NAME_TAKEN message = ada is taken metadata = map[name:ada] cause = <nil>
    >>> is_(e, conflict("NAME_TAKEN", "another text"))
    True
    """

    _no_cause = "<nil>"
    code: int
    reason: str
    message: str
    metadata: dict[str, str]

    def __init__(self, code: int, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        self.code = _field(code, "code", int)
        self.reason = _field(reason, "reason", str)
        self.message = _field(message, "message", str)
        self.metadata = _metadata(metadata)
        super().__init__(code, reason, message)

    @property
    def cause(self) -> BaseException | None:
        """What it was raised from, or given by `with_cause()`."""
        return self.__cause__

    def with_cause(self, cause: BaseException | None) -> Self:
        """A copy with this cause."""
        if cause is not None:
            _error(cause, "cause")
        other = copy.copy(self)
        other.__cause__ = cause
        return other

    def with_metadata(self, metadata: Mapping[str, str] | None) -> Self:
        """A copy with this metadata in place of its own."""
        other = copy.copy(self)
        other.metadata = _metadata(metadata)
        return other

    def is_(self, target: BaseException) -> bool:
        """Whether `target` is, or wraps, an Error of the same code and reason."""
        other = as_(target, Error)
        return other is not None and (other.code, other.reason) == (self.code, self.reason)

    def to_dict(self) -> dict[str, Any]:
        """The body of an answer that says so: code, reason, message, metadata. The cause is kept back."""
        return {"code": self.code, "reason": self.reason, "message": self.message, "metadata": dict(self.metadata)}

    @staticmethod
    def from_dict(body: Mapping[str, Any]) -> Error:
        """What `to_dict()` was called on; a field that is missing or null is 0, "" or empty, others are passed over.

        Raises TypeError if a field is of another type.
        """
        if not isinstance(body, Mapping):
            raise TypeError(f"body must be a mapping, not {body!r}")
        given = {name: value for name, value in body.items() if value is not None}
        return Error(given.get("code", 0), given.get("reason", ""), given.get("message", ""), given.get("metadata"))

    def _head(self) -> str:
        metadata = " ".join(f"{k}:{v}" for k, v in sorted(self.metadata.items()))
        return (
            f"error: code = {self.code} reason = {self.reason} message = {self.message}"
            f" metadata = map[{metadata}] cause = "
        )

    def __repr__(self) -> str:
        metadata = f", {self.metadata!r}" if self.metadata else ""
        return f"{type(self).__qualname__}({self.code!r}, {self.reason!r}, {self.message!r}{metadata})"

    # A copy has the cause and no traceback; a pickled one, as any exception, neither.
    def __copy__(self) -> Self:
        other = _restore(type(self), self.args)
        other.__dict__.update(self.__dict__)
        other.metadata = dict(self.metadata)
        if notes := getattr(self, "__notes__", None):
            other.__notes__ = list(notes)
        other.__cause__ = self.__cause__
        other.__suppress_context__ = self.__suppress_context__
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = copy.copy(self)
        memo[id(self)] = other
        for name, value in other.__dict__.items():
            other.__dict__[name] = copy.deepcopy(value, memo)
        return other

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        return _restore, (type(self), self.args), self.__dict__


@overload
def from_error(err: BaseException) -> Error: ...
@overload
def from_error(err: None) -> None: ...
@overload
def from_error(err: BaseException | None) -> Error | None: ...
def from_error(err: BaseException | None) -> Error | None:
    """Any error as an Error: the first one in its tree, or else a new one whose cause is `err`.

    The new one's message is the text of `err`, its reason UNKNOWN_REASON, its
    code 499 if a context was cancelled, 504 if the time was up (any
    TimeoutError), and 500 for all else. None for None.
    """
    if err is None:
        return None
    status = UNKNOWN_CODE
    for e in _tree(_error(err)):
        if isinstance(e, Error):
            return e
        if status == UNKNOWN_CODE:
            if isinstance(e, context.Canceled):
                status = CLIENT_CLOSED
            elif isinstance(e, TimeoutError):
                status = 504
    made = Error(status, UNKNOWN_REASON, str(err))
    made.__cause__ = err
    return made


def code(err: BaseException | None) -> int:
    """The HTTP status of an error, as `from_error()` finds it; 200 for None."""
    return 200 if err is None else from_error(err).code


def reason(err: BaseException | None) -> str:
    """The reason of an error, as `from_error()` finds it; UNKNOWN_REASON for None."""
    return UNKNOWN_REASON if err is None else from_error(err).reason


def bad_request(reason: str, message: str) -> Error:
    """An Error of code 400: the request is wrong in itself."""
    return Error(400, reason, message)


def is_bad_request(err: BaseException | None) -> bool:
    """Whether `code(err)` is 400."""
    return code(err) == 400


def unauthorized(reason: str, message: str) -> Error:
    """An Error of code 401: it is not known who asks."""
    return Error(401, reason, message)


def is_unauthorized(err: BaseException | None) -> bool:
    """Whether `code(err)` is 401."""
    return code(err) == 401


def forbidden(reason: str, message: str) -> Error:
    """An Error of code 403: who asks is known, and may not."""
    return Error(403, reason, message)


def is_forbidden(err: BaseException | None) -> bool:
    """Whether `code(err)` is 403."""
    return code(err) == 403


def not_found(reason: str, message: str) -> Error:
    """An Error of code 404: there is no such thing."""
    return Error(404, reason, message)


def is_not_found(err: BaseException | None) -> bool:
    """Whether `code(err)` is 404."""
    return code(err) == 404


def conflict(reason: str, message: str) -> Error:
    """An Error of code 409: it does not go with the present state."""
    return Error(409, reason, message)


def is_conflict(err: BaseException | None) -> bool:
    """Whether `code(err)` is 409."""
    return code(err) == 409


def too_many_requests(reason: str, message: str) -> Error:
    """An Error of code 429: too much was asked for."""
    return Error(429, reason, message)


def is_too_many_requests(err: BaseException | None) -> bool:
    """Whether `code(err)` is 429."""
    return code(err) == 429


def client_closed(reason: str, message: str) -> Error:
    """An Error of code 499: the client went away."""
    return Error(499, reason, message)


def is_client_closed(err: BaseException | None) -> bool:
    """Whether `code(err)` is 499."""
    return code(err) == 499


def internal_server(reason: str, message: str) -> Error:
    """An Error of code 500: the fault is the server's."""
    return Error(500, reason, message)


def is_internal_server(err: BaseException | None) -> bool:
    """Whether `code(err)` is 500."""
    return code(err) == 500


def service_unavailable(reason: str, message: str) -> Error:
    """An Error of code 503: not now."""
    return Error(503, reason, message)


def is_service_unavailable(err: BaseException | None) -> bool:
    """Whether `code(err)` is 503."""
    return code(err) == 503


def gateway_timeout(reason: str, message: str) -> Error:
    """An Error of code 504: the time was up."""
    return Error(504, reason, message)


def is_gateway_timeout(err: BaseException | None) -> bool:
    """Whether `code(err)` is 504."""
    return code(err) == 504


# ---- HTTP and gRPC --------------------------------------------------------------


class GrpcCode(IntEnum):
    """gRPC's status codes (google/rpc/code.proto)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_TO_GRPC = {
    200: GrpcCode.OK,
    400: GrpcCode.INVALID_ARGUMENT,
    401: GrpcCode.UNAUTHENTICATED,
    403: GrpcCode.PERMISSION_DENIED,
    404: GrpcCode.NOT_FOUND,
    409: GrpcCode.ABORTED,
    429: GrpcCode.RESOURCE_EXHAUSTED,
    499: GrpcCode.CANCELLED,
    500: GrpcCode.INTERNAL,
    501: GrpcCode.UNIMPLEMENTED,
    503: GrpcCode.UNAVAILABLE,
    504: GrpcCode.DEADLINE_EXCEEDED,
}

_FROM_GRPC = {
    GrpcCode.OK: 200,
    GrpcCode.CANCELLED: 499,
    GrpcCode.UNKNOWN: 500,
    GrpcCode.INVALID_ARGUMENT: 400,
    GrpcCode.DEADLINE_EXCEEDED: 504,
    GrpcCode.NOT_FOUND: 404,
    GrpcCode.ALREADY_EXISTS: 409,
    GrpcCode.PERMISSION_DENIED: 403,
    GrpcCode.RESOURCE_EXHAUSTED: 429,
    GrpcCode.FAILED_PRECONDITION: 400,
    GrpcCode.ABORTED: 409,
    GrpcCode.OUT_OF_RANGE: 400,
    GrpcCode.UNIMPLEMENTED: 501,
    GrpcCode.INTERNAL: 500,
    GrpcCode.UNAVAILABLE: 503,
    GrpcCode.DATA_LOSS: 500,
    GrpcCode.UNAUTHENTICATED: 401,
}

_ERROR_INFO = "google.rpc.ErrorInfo"


def to_grpc_code(status: int) -> GrpcCode:
    """The gRPC code for an HTTP status; UNKNOWN for one that has none."""
    return _TO_GRPC.get(_field(status, "status", int), GrpcCode.UNKNOWN)


def from_grpc_code(code: int) -> int:
    """The HTTP status for a gRPC code; 500 for one that does not exist."""
    return _FROM_GRPC.get(_field(code, "code", int), 500)


def to_http(err: BaseException) -> tuple[int, dict[str, Any]]:
    """The status and the JSON body (as a dict) of the HTTP answer that reports `err`.

    The status is `code(err)`, or 500 if HTTP has no such number.
    """
    e = from_error(_error(err))
    return e.code if 100 <= e.code <= 999 else 500, e.to_dict()


def from_http(status: int, body: Mapping[str, Any] | str | bytes | bytearray | None) -> Error | None:
    """The Error that an HTTP answer reports; None if its status is one of success (2xx).

    The code is the status, whatever the body says. With a body that is no JSON
    object of an Error's fields, reason and message are empty, and the cause is
    the error in it.
    """
    _field(status, "status", int)
    if 200 <= status <= 299:
        return None
    try:
        e = Error.from_dict(json.loads(body) if isinstance(body, str | bytes | bytearray) else body)  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError) as wrong:
        return Error(status, UNKNOWN_REASON, "").with_cause(wrong)
    e.code = status
    return e


def to_grpc(err: BaseException) -> dict[str, Any]:
    """The google.rpc.Status that reports `err`, as a dict: code, message, and an ErrorInfo among the details."""
    e = from_error(_error(err))
    info = {
        "@type": f"type.googleapis.com/{_ERROR_INFO}",
        "reason": e.reason,
        "domain": "",
        "metadata": dict(e.metadata),
    }
    return {"code": int(to_grpc_code(e.code)), "message": e.message, "details": [info]}


def from_grpc(code: int, message: str = "", details: Iterable[Mapping[str, Any]] = ()) -> Error | None:
    """The Error that a google.rpc.Status reports, with the first ErrorInfo's reason and metadata; None for code 0.

    >>> from_grpc(**to_grpc(not_found("USER_NOT_FOUND", "no such user")))
    Error(404, 'USER_NOT_FOUND', 'no such user')
    """
    status = from_grpc_code(code)
    if code == GrpcCode.OK:
        return None
    for info in details:
        if str(info.get("@type", "")).rpartition("/")[2] == _ERROR_INFO:
            return Error(status, info.get("reason") or UNKNOWN_REASON, message, info.get("metadata"))
    return Error(status, UNKNOWN_REASON, message)
