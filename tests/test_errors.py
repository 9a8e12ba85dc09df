"""gort.errors: the tree of an error, business errors, and their HTTP and gRPC forms."""

from __future__ import annotations

import copy
import doctest
import gc
import json
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gort
from gort import context, errors

DEEP = 10_000


def raised_from(err: BaseException, cause: BaseException | None) -> BaseException:
    try:
        raise err from cause
    except BaseException as e:
        return e


def raised_while_handling(err: BaseException, first: BaseException) -> BaseException:
    try:
        try:
            raise first
        except BaseException:
            raise err  # noqa: B904
    except BaseException as e:
        return e


class Unwrapping(Exception):
    def __init__(self, inner: Any) -> None:
        super().__init__("unwrapping")
        self.inner = inner

    def unwrap(self) -> Any:
        return self.inner


class Like(Exception):
    """Says itself what it is, as Go's `Is` and `As` methods do."""

    def __init__(self, other: BaseException) -> None:
        super().__init__("like")
        self.other = other

    def is_(self, target: BaseException) -> bool:
        return target is self.other

    def as_(self, cls: type[BaseException]) -> BaseException | None:
        return self.other


class Coordinate(Exception):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coordinate) and other.args == self.args

    __hash__ = Exception.__hash__


def test_the_doctests() -> None:
    assert doctest.testmod(errors).failed == 0


# ---- the tree ---------------------------------------------------------------


def test_an_error_is_itself_and_of_its_classes() -> None:
    e = KeyError("k")
    assert errors.is_(e, e)
    assert errors.is_(e, KeyError)
    assert errors.is_(e, LookupError)
    assert not errors.is_(e, KeyError("k"))
    assert not errors.is_(e, ValueError)


def test_equal_errors_are_the_same() -> None:
    assert errors.is_(errors.wrap(Coordinate(1, 2), "at"), Coordinate(1, 2))
    assert not errors.is_(Coordinate(1, 2), Coordinate(2, 1))


def test_none_is_only_none() -> None:
    assert errors.is_(None, None)
    assert not errors.is_(None, ValueError)
    assert not errors.is_(ValueError(), None)
    assert errors.as_(None, ValueError) is None
    assert errors.unwrap(None) is None
    assert errors.wrap(None, "nothing") is None
    assert errors.from_error(None) is None


def test_two_errors_of_one_text_are_two() -> None:
    a, b = errors.new("EOF"), errors.new("EOF")
    assert str(a) == "EOF"
    assert errors.is_(a, a)
    assert not errors.is_(a, b)


def test_a_wrapped_error_is_found_and_read() -> None:
    eof = errors.new("EOF")
    e = errors.wrap(errors.wrap(eof, "read"), "load")
    assert str(e) == "load: read: EOF"
    assert errors.is_(e, eof)
    assert isinstance(inner := errors.unwrap(e), errors.WrapError)
    assert inner.message == "read"
    assert errors.unwrap(inner) is eof
    assert errors.unwrap(eof) is None


def test_the_text_of_a_wrapped_error_follows_its_cause() -> None:
    e = errors.wrap(ValueError("a"), "load")
    assert str(raised_from(e, ValueError("b"))) == "load: b"
    assert str(raised_from(e, None)) == "load"


def test_raise_from_wraps() -> None:
    e = raised_from(RuntimeError("outer"), KeyError("k"))
    assert errors.is_(e, KeyError)
    assert str(errors.as_(e, KeyError)) == "'k'"


def test_an_error_raised_while_another_was_handled_does_not_wrap_it() -> None:
    e = raised_while_handling(RuntimeError("outer"), KeyError("k"))
    assert isinstance(e.__context__, KeyError)
    assert not errors.is_(e, KeyError)
    assert errors.unwrap(e) is None


def test_raise_from_none_wraps_nothing() -> None:
    assert not errors.is_(raised_from(RuntimeError(), None), KeyError)


def test_the_members_of_a_group_belong_to_it() -> None:
    inner = ExceptionGroup("inner", [ValueError("v"), errors.wrap(OSError(2, "gone"), "open")])
    e = ExceptionGroup("outer", [inner, KeyError("k")])
    for cls in (ValueError, FileNotFoundError, KeyError, ExceptionGroup):
        assert errors.is_(e, cls)
    assert not errors.is_(e, IndexError)
    assert errors.unwrap(e) is None


def test_a_group_has_a_cause_too() -> None:
    e = raised_from(ExceptionGroup("g", [ValueError()]), KeyError())
    assert errors.is_(e, ValueError)
    assert errors.is_(e, KeyError)
    assert isinstance(errors.unwrap(e), KeyError)


@pytest.mark.parametrize("several", [list, tuple, iter])
def test_unwrap_methods_are_asked(several: Callable[[Any], Any]) -> None:
    k, v = KeyError(), ValueError()
    assert errors.is_(Unwrapping(k), KeyError)
    assert errors.unwrap(Unwrapping(k)) is k
    assert errors.is_(Unwrapping(several([k, v])), v)
    assert errors.unwrap(Unwrapping([k, v])) is None


@pytest.mark.parametrize("nothing", [None, 7, "text", [], [None, "text"]])
def test_an_unwrap_method_that_gives_no_error_is_passed_over(nothing: object) -> None:
    e = raised_from(Unwrapping(nothing), KeyError())
    assert errors.is_(e, KeyError)
    assert isinstance(errors.unwrap(e), KeyError)


def test_unwrap_that_is_no_method_is_passed_over() -> None:
    e = ValueError()
    e.unwrap = KeyError()  # type: ignore[attr-defined]
    e.is_ = e.as_ = True  # type: ignore[attr-defined]
    assert not errors.is_(e, KeyError)
    assert not errors.is_(e, KeyError())
    assert errors.as_(e, KeyError) is None


def test_is_and_as_methods_are_asked() -> None:
    target = FileNotFoundError()
    e = errors.wrap(Like(target), "wrapped")
    assert errors.is_(e, target)
    assert not errors.is_(e, FileNotFoundError())
    assert errors.as_(e, OSError) is target
    assert errors.as_(e, KeyError) is None


def test_as_gives_the_first_in_depth_first_order() -> None:
    first, second, third = ValueError(1), ValueError(2), ValueError(3)
    e = ExceptionGroup("g", [errors.wrap(first, "deep"), second])
    e.__cause__ = third
    assert errors.as_(e, ValueError) is first
    assert errors.as_(e, ExceptionGroup) is e


def test_a_cycle_ends() -> None:
    a, b = errors.wrap(ValueError(), "a"), errors.wrap(KeyError(), "b")
    a.__cause__, b.__cause__ = b, a
    assert errors.is_(a, b)
    assert not errors.is_(a, KeyError)
    assert errors.as_(a, OSError) is None
    assert str(a) == "a: b: ..."
    own = Unwrapping(None)
    own.inner = own
    assert not errors.is_(own, KeyError)


def deep_wraps() -> Exception:
    e: Exception = KeyError("bottom")
    for _ in range(DEEP):
        e = errors.wrap(e, "up")
    return e


def deep_business_errors() -> Exception:
    e: Exception = KeyError("bottom")
    for _ in range(DEEP):
        e = errors.Error(1, "R", "up").with_cause(e)
    return e


def deep_groups() -> Exception:
    e: Exception = KeyError("bottom")
    for _ in range(DEEP):
        e = ExceptionGroup("up", [e])
    return e


def deep_unwraps() -> Exception:
    e: Exception = KeyError("bottom")
    for _ in range(DEEP):
        e = Unwrapping(e)
    return e


@pytest.mark.parametrize("make", [deep_wraps, deep_business_errors, deep_groups, deep_unwraps])
def test_a_deep_tree_does_not_recurse(make: Callable[[], Exception]) -> None:
    e = make()
    assert errors.is_(e, KeyError)
    assert not errors.is_(e, ValueError)
    assert not errors.is_(e, ValueError())
    assert str(errors.as_(e, KeyError)) == "'bottom'"
    assert gort.go(errors.is_, e, KeyError).join()


@pytest.mark.parametrize("make", [deep_wraps, deep_business_errors])
def test_the_text_of_a_deep_chain_does_not_recurse(make: Callable[[], Exception]) -> None:
    text = str(make())
    assert text.count("up") == DEEP
    assert text.endswith("'bottom'")


@st.composite
def trees(draw: st.DrawFn) -> tuple[BaseException, list[int]]:
    """An error and the numbers of the ValueErrors in it, in depth-first order."""
    order: list[int] = []

    def make(depth: int) -> Exception:
        kind = draw(st.sampled_from(["leaf", "wrap", "group", "unwrap"] if depth else ["leaf"]))
        if kind == "leaf":
            order.append(len(order))
            return ValueError(order[-1])
        if kind == "wrap":
            return errors.wrap(make(depth - 1), "w")
        inner = [make(depth - 1) for _ in range(draw(st.integers(1, 3)))]
        return ExceptionGroup("g", inner) if kind == "group" else Unwrapping(inner)

    return make(4), order


@given(trees())
def test_every_leaf_is_found(tree: tuple[BaseException, list[int]]) -> None:
    e, leaves = tree
    assert [x.args[0] for x in errors._tree(e) if isinstance(x, ValueError)] == leaves
    assert str(errors.as_(e, ValueError)) == "0"


def test_join_makes_a_group_of_what_is_left() -> None:
    k, v = KeyError("k"), ValueError("v")
    e = errors.join(None, k, None, v)
    assert isinstance(e, ExceptionGroup)
    assert e.exceptions == (k, v)
    assert e.message == "'k'\nv"
    assert errors.is_(e, k)
    caught: list[BaseException] = []
    try:
        raise e
    except* KeyError as some:
        caught += some.exceptions
    except* ValueError as some:
        caught += some.exceptions
    assert caught == [k, v]


def test_join_of_nothing_is_none() -> None:
    assert errors.join() is None
    assert errors.join(None, None) is None


def test_join_of_one_is_a_group_of_one() -> None:
    e = errors.join(KeyError("k"))
    assert isinstance(e, ExceptionGroup)
    assert errors.unwrap(e) is None


def test_join_keeps_an_interrupt_an_interrupt() -> None:
    e = errors.join(KeyError(), KeyboardInterrupt())
    assert isinstance(e, BaseExceptionGroup)
    assert not isinstance(e, Exception)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: errors.is_("text", ValueError), "err must be an exception, not 'text'"),
        (lambda: errors.is_(ValueError(), "text"), "target must be .*not 'text'"),
        (lambda: errors.is_(ValueError(), int), "target must be .*not <class 'int'>"),
        (lambda: errors.is_(ValueError(), (KeyError, ValueError)), "target must be"),
        (lambda: errors.as_(7, ValueError), "err must be an exception, not 7"),
        (lambda: errors.as_(ValueError(), int), "type must be an exception class, not <class 'int'>"),
        (lambda: errors.as_(None, ValueError()), "type must be an exception class"),
        (lambda: errors.unwrap("text"), "err must be"),
        (lambda: errors.join(ValueError(), "text"), "errs must be an exception, not 'text'"),
        (lambda: errors.wrap("text", "m"), "err must be an Exception or None, not 'text'"),
        (lambda: errors.wrap(gort.GoroutineExit(), "m"), "err must be an Exception or None"),
        (lambda: errors.wrap(ValueError(), 7), "message must be a str, not 7"),
        (lambda: errors.wrap(None, 7), "message must be a str, not 7"),
        (lambda: errors.new(7), "text must be a str, not 7"),
        (lambda: errors.Error("404", "R", "m"), "code must be an int, not '404'"),
        (lambda: errors.Error(True, "R", "m"), "code must be an int, not True"),
        (lambda: errors.Error(404, None, "m"), "reason must be a str, not None"),
        (lambda: errors.Error(404, "R", b"m"), "message must be a str, not b'm'"),
        (lambda: errors.Error(404, "R", "m", [("a", "b")]), "metadata must be a mapping"),
        (lambda: errors.Error(404, "R", "m", {"a": 1}), "metadata must be .*'a': 1"),
        (lambda: errors.Error(404, "R", "m").with_metadata({1: "a"}), "metadata must be .*1: 'a'"),
        (lambda: errors.Error(404, "R", "m").with_cause("text"), "cause must be an exception, not 'text'"),
        (lambda: errors.Error.from_dict([]), r"body must be a mapping, not \[\]"),
        (lambda: errors.Error.from_dict({"code": "404"}), "code must be an int, not '404'"),
        (lambda: errors.from_error("text"), "err must be"),
        (lambda: errors.code("text"), "err must be"),
        (lambda: errors.to_http(None), "err must be an exception, not None"),
        (lambda: errors.to_grpc(None), "err must be an exception, not None"),
        (lambda: errors.to_grpc_code("404"), "status must be an int, not '404'"),
        (lambda: errors.from_grpc_code(None), "code must be an int, not None"),
        (lambda: errors.from_http("404", b""), "status must be an int, not '404'"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        call()


# ---- business errors ----------------------------------------------------------

KINDS = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "too_many_requests": 429,
    "client_closed": 499,
    "internal_server": 500,
    "service_unavailable": 503,
    "gateway_timeout": 504,
}


@pytest.mark.parametrize(("name", "status"), KINDS.items())
def test_each_kind_is_made_and_known(name: str, status: int) -> None:
    e = getattr(errors, name)("REASON", "text")
    assert (e.code, e.reason, e.message, e.metadata, e.cause) == (status, "REASON", "text", {}, None)
    wrapped = errors.join(KeyError(), errors.wrap(e, "wrapped"))
    for other, code in KINDS.items():
        assert getattr(errors, f"is_{other}")(e) is (code == status)
        assert getattr(errors, f"is_{other}")(wrapped) is (code == status)
        assert getattr(errors, f"is_{other}")(None) is False
    assert errors.code(wrapped) == status
    assert errors.reason(wrapped) == "REASON"


def test_the_text_is_kratos() -> None:
    e = errors.Error(404, "USER_NOT_FOUND", "no such user", {"name": "ada", "id": "7"})
    text = "error: code = 404 reason = USER_NOT_FOUND message = no such user metadata = map[id:7 name:ada] cause = "
    assert str(e) == text + "<nil>"
    assert str(e.with_cause(ValueError("v"))) == text + "v"
    assert str(errors.wrap(e, "wrapped")) == f"wrapped: {text}<nil>"
    assert repr(e) == "Error(404, 'USER_NOT_FOUND', 'no such user', {'name': 'ada', 'id': '7'})"
    assert eval(repr(e), {"Error": errors.Error}).to_dict() == e.to_dict()


def test_two_are_the_same_by_code_and_reason() -> None:
    e = errors.not_found("USER", "a")
    assert errors.is_(e, errors.not_found("USER", "b"))
    assert errors.is_(errors.wrap(e, "w"), errors.wrap(errors.not_found("USER", "b"), "v"))
    assert not errors.is_(e, errors.not_found("GROUP", "a"))
    assert not errors.is_(e, errors.conflict("USER", "a"))
    assert not errors.is_(e, ValueError())
    assert e != errors.not_found("USER", "a")


def test_with_gives_copies() -> None:
    given = {"a": "1"}
    e = errors.not_found("R", "m").with_metadata(given)
    given["a"] = "2"
    other = e.with_cause(KeyError("k"))
    other.metadata["b"] = "3"
    assert e.metadata == {"a": "1"}
    assert e.cause is None
    assert other.metadata == {"a": "1", "b": "3"}
    assert isinstance(other.cause, KeyError)
    assert errors.is_(other, KeyError)
    assert other.with_metadata(None).metadata == {}
    assert other.with_cause(None).cause is None
    assert isinstance(other.cause, KeyError)


class Missing(errors.Error):
    def __init__(self, user: int) -> None:
        super().__init__(404, "USER_NOT_FOUND", f"no user {user}")
        self.user = user


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_and_pickles_are_the_same(duplicate: Callable[[Any], Any]) -> None:
    e = Missing(7).with_metadata({"a": "1"})
    e.add_note("a note")
    e.__cause__ = KeyError("k")
    other = duplicate(e)
    assert type(other) is Missing
    assert other is not e
    assert (other.user, other.to_dict(), other.__notes__) == (7, e.to_dict(), ["a note"])
    assert errors.is_(other, e)
    other.metadata["b"] = "2"
    other.add_note("another")
    assert e.metadata == {"a": "1"}
    assert e.__notes__ == ["a note"]


def test_a_copy_has_the_cause_and_a_pickled_one_has_not() -> None:
    e = errors.not_found("R", "m").with_cause(raised_from(KeyError(), None))
    assert copy.copy(e).cause is e.cause
    assert copy.deepcopy(e).cause is e.cause
    assert pickle.loads(pickle.dumps(e)).cause is None
    assert pickle.loads(pickle.dumps(errors.wrap(e, "w"))).message == "w"


def test_errors_hold_nothing_back() -> None:
    e = errors.from_error(errors.wrap(KeyError(), "w"))
    gone = weakref.ref(e)
    gc.disable()
    try:
        assert errors.is_(e, KeyError)
        assert str(e).endswith("cause = w: ")
        del e
        assert gone() is None
    finally:
        gc.enable()


# ---- from_error ------------------------------------------------------------------


def test_from_error_finds_the_error_inside() -> None:
    e = errors.conflict("R", "m")
    assert errors.from_error(e) is e
    assert errors.from_error(raised_from(ValueError(), errors.wrap(e, "w"))) is e
    assert errors.from_error(ExceptionGroup("g", [TimeoutError(), e])) is e


@pytest.mark.parametrize(
    ("err", "status"),
    [
        (ValueError("text"), 500),
        (TimeoutError("text"), 504),
        (context.Canceled("text"), 499),
        (context.DeadlineExceeded("text"), 504),
        (errors.wrap(TimeoutError("late"), "text"), 504),
        (gort.ChanClosed("text"), 500),
        (gort.GoroutineExit("text"), 500),
    ],
    ids=repr,
)
def test_from_error_makes_one_of_any_other(err: BaseException, status: int) -> None:
    e = errors.from_error(err)
    assert (e.code, e.reason, e.message, e.cause) == (status, "", str(err), err)
    assert (errors.code(err), errors.reason(err)) == (status, "")
    assert (errors.UNKNOWN_CODE, errors.UNKNOWN_REASON, errors.CLIENT_CLOSED) == (500, "", 499)


def test_no_error_is_well() -> None:
    assert errors.code(None) == 200
    assert errors.reason(None) == ""


def test_the_first_in_the_tree_decides() -> None:
    assert errors.code(ExceptionGroup("g", [context.Canceled(), TimeoutError()])) == 499
    assert errors.code(ExceptionGroup("g", [ValueError(), TimeoutError(), context.Canceled()])) == 504


# ---- HTTP and gRPC -----------------------------------------------------------------

# transport/http/status/status_test.go of Kratos.
TO_GRPC = {
    200: "OK",
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    499: "CANCELLED",
    418: "UNKNOWN",
    100_000: "UNKNOWN",
}
FROM_GRPC = {
    0: 200,
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
    10_000: 500,
    -1: 500,
}


@pytest.mark.parametrize(("status", "name"), TO_GRPC.items())
def test_http_status_to_grpc_code(status: int, name: str) -> None:
    assert errors.to_grpc_code(status) is errors.GrpcCode[name]


@pytest.mark.parametrize(("code", "status"), FROM_GRPC.items())
def test_grpc_code_to_http_status(code: int, status: int) -> None:
    assert errors.from_grpc_code(code) == status


@given(st.integers(), st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_an_error_comes_back_from_its_dict(code: int, reason: str, message: str, metadata: dict[str, str]) -> None:
    e = errors.Error(code, reason, message, metadata)
    assert errors.Error.from_dict(json.loads(json.dumps(e.to_dict()))).to_dict() == e.to_dict()
    e.to_dict()["metadata"]["more"] = "?"
    assert e.metadata == metadata


@given(st.integers(300, 599), st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_an_error_comes_back_over_http(code: int, reason: str, message: str, metadata: dict[str, str]) -> None:
    e = errors.Error(code, reason, message, metadata)
    status, body = errors.to_http(errors.wrap(e.with_cause(KeyError("secret")), "w"))
    assert status == code
    assert "secret" not in json.dumps(body)
    for form in (body, json.dumps(body), json.dumps(body).encode(), bytearray(json.dumps(body).encode())):
        back = errors.from_http(status, form)
        assert back is not None
        assert back.to_dict() == e.to_dict()


@given(st.sampled_from(sorted(KINDS.values())), st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_an_error_comes_back_over_grpc(code: int, reason: str, message: str, metadata: dict[str, str]) -> None:
    e = errors.Error(code, reason, message, metadata)
    back = errors.from_grpc(**errors.to_grpc(errors.wrap(e, "w")))
    assert back is not None
    assert back.to_dict() == e.to_dict()


def test_a_missing_field_is_empty_and_a_strange_one_passed_over() -> None:
    assert errors.Error.from_dict({}).to_dict() == {"code": 0, "reason": "", "message": "", "metadata": {}}
    body = {"code": None, "metadata": None, "stack": [1]}
    assert errors.Error.from_dict(body).to_dict() == errors.Error.from_dict({}).to_dict()


@pytest.mark.parametrize(("code", "status"), [(0, 500), (-1, 500), (99, 500), (1000, 500), (100, 100), (999, 999)])
def test_a_code_that_http_does_not_know_is_answered_with_500(code: int, status: int) -> None:
    answered, body = errors.to_http(errors.Error(code, "R", "m"))
    assert (answered, body["code"]) == (status, code)


@pytest.mark.parametrize("status", [200, 204, 299])
def test_success_is_no_error(status: int) -> None:
    assert errors.from_http(status, b"anything") is None
    assert errors.from_grpc(0, "fine") is None


def test_the_status_counts_not_the_code_in_the_body() -> None:
    e = errors.from_http(503, {"code": 404, "reason": "R"})
    assert e is not None
    assert (e.code, e.reason) == (503, "R")


@pytest.mark.parametrize(
    "body", [b"<html>", "", None, b"\xff\xfe", "[]", "7", '{"code": "x"}', '{"metadata": {"a": 1}}', "[" * 100_000]
)
def test_an_answer_that_is_no_error_of_ours_is_an_error_still(body: Any) -> None:
    e = errors.from_http(502, body)
    assert e is not None
    assert (e.code, e.reason, e.message) == (502, "", "")
    assert isinstance(e.cause, TypeError | ValueError | RecursionError)


def test_grpc_details_other_than_error_info_are_passed_over() -> None:
    details = [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "reason": "no"},
        {},
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "YES", "metadata": {"a": "1"}},
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "LATE"},
    ]
    e = errors.from_grpc(5, "text", details)
    assert e is not None
    assert e.to_dict() == {"code": 404, "reason": "YES", "message": "text", "metadata": {"a": "1"}}
    bare = errors.from_grpc(14, "down")
    assert bare is not None
    assert bare.to_dict() == {"code": 503, "reason": "", "message": "down", "metadata": {}}
    info = errors.to_grpc(errors.not_found("R", "m"))
    assert info == {
        "code": 5,
        "message": "m",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "R", "domain": "", "metadata": {}}],
    }
