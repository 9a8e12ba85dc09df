"""The public names stand where api.md says, and say what they are for."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest

import gort
import gort.aio
import gort.atomic
import gort.context
import gort.errgroup
import gort.futures
import gort.native
import gort.net
import gort.polling
import gort.rate
import gort.selectors
import gort.singleflight
import gort.socket
import gort.ssl
import gort.sync
import gort.time

NAMES = {
    gort: """go run Goroutine current num_goroutine num_cpu gomaxprocs gosched sleep goexit lock_os_thread
        unlock_os_thread blocking stack excepthook NIL Chan select ChanClosed WouldBlock Deadlock GoroutineExit
        get_include""",
    gort.sync: "Mutex RWMutex WaitGroup Once once_func once_value Cond Pool Semaphore Map",
    gort.atomic: "Int64 Bool Ref",
    gort.context: """Context Canceled DeadlineExceeded background todo with_cancel with_cancel_cause with_deadline
        with_timeout with_value without_cancel after_func cause current use timeout cancelable go""",
    gort.time: "sleep after tick Timer Ticker after_func now",
    gort.native: "go NativeGoroutine lib_path",
    gort.net: """listen dial Listener Conn listen_packet dial_packet PacketConn pipe lookup Addr ErrClosed
        IncompleteRead""",
    gort.socket: """socket create_connection create_server socketpair fromfd has_dualstack_ipv6 getaddrinfo getnameinfo
        gethostbyname gethostbyname_ex gethostbyaddr getfqdn""",
    gort.ssl: "SSLContext SSLSocket create_default_context get_server_certificate",
    gort.polling: "select poll epoll",
    gort.selectors: "DefaultSelector SelectSelector PollSelector EpollSelector",
    gort.errgroup: "Group",
    gort.singleflight: "Group Result",
    gort.rate: "Limiter Reservation Sometimes every",
    gort.errors: """new wrap unwrap is_ as_ join Error WrapError GrpcCode from_error code reason
        bad_request unauthorized forbidden not_found conflict too_many_requests client_closed internal_server
        service_unavailable gateway_timeout is_bad_request is_unauthorized is_forbidden is_not_found is_conflict
        is_too_many_requests is_client_closed is_internal_server is_service_unavailable is_gateway_timeout
        to_grpc_code from_grpc_code to_http from_http to_grpc from_grpc""",
    gort.aio: "call recv recv_ok send select join iterate run_coroutine run",
    gort.futures: "Executor Future",
    gort.patterns: """generate stage pipeline map for_each merge fan_in fan_out tee or_done batch debounce throttle
        with_timeout hedge first WorkerPool Task Broker Subscription Message SlowConsumer Stream""",
}

METHODS = {
    gort.Goroutine: "id name state wait_reason join done kill stack",
    gort.Chan: "send recv recv_ok send_nowait recv_nowait close cap closed sender receiver __iter__ __len__",
    gort.sync.Mutex: "lock unlock try_lock __enter__ __exit__",
    gort.sync.RWMutex: "rlock runlock lock unlock try_lock try_rlock reader writer",
    gort.sync.WaitGroup: "add done wait go",
    gort.sync.Once: "do",
    gort.sync.Cond: "wait signal broadcast",
    gort.sync.Pool: "get put",
    gort.sync.Semaphore: "acquire try_acquire release",
    gort.sync.Map: """load store load_or_store load_and_delete delete swap compare_and_swap compare_and_delete
        range clear""",
    gort.atomic.Int64: "load store swap compare_and_swap add",
    gort.atomic.Bool: "load store swap compare_and_swap",
    gort.atomic.Ref: "load store swap compare_and_swap",
    gort.context.Context: "deadline done err value wait",
    gort.time.Timer: "c stop reset",
    gort.time.Ticker: "c stop reset",
    gort.native.NativeGoroutine: "join done id",
    gort.net.Listener: "accept close addr set_deadline __iter__ __enter__ __exit__",
    gort.net.Conn: """read read_into read_exactly write writev sendfile close close_read close_write set_deadline
        set_read_deadline set_write_deadline local_addr remote_addr fileno set_no_delay set_keep_alive set_linger
        set_option __enter__ __exit__""",
    gort.net.PacketConn: """read_from read write_to write close set_deadline set_read_deadline set_write_deadline
        local_addr remote_addr __enter__ __exit__""",
    gort.socket.socket: """accept bind close connect connect_ex detach dup fileno getblocking gettimeout makefile recv
        recv_into recvfrom recvfrom_into recvmsg recvmsg_into send sendall sendfile sendmsg sendto setblocking
        setsockopt settimeout shutdown timeout""",
    gort.ssl.SSLSocket: "do_handshake read recv recv_into send sendall unwrap write",
    gort.polling.epoll: "close closed fileno fromfd modify poll register unregister __enter__ __exit__",
    gort.errgroup.Group: "go try_go wait ctx limit set_limit all_errors __enter__ __exit__",
    gort.futures.Executor: "submit map shutdown __enter__ __exit__",
    gort.futures.Future: "result exception cancel done add_done_callback",
    gort.singleflight.Group: "do do_chan forget",
    gort.singleflight.Result: "value err shared",
    gort.rate.Limiter: "allow wait reserve tokens limit burst set_limit set_burst",
    gort.rate.Reservation: "ok delay delay_from cancel cancel_at",
    gort.rate.Sometimes: "do",
    gort.errors.Error: "cause with_cause with_metadata is_ to_dict from_dict",
    gort.patterns.Stream: "recv recv_ok recv_nowait close __iter__ __next__ __enter__ __exit__",
    gort.patterns.WorkerPool: "submit try_submit drain cancel close closed __enter__ __exit__",
    gort.patterns.Task: "result exception done cancel",
    gort.patterns.Broker: "subscribe publish close closed __enter__ __exit__",
    gort.patterns.Subscription: "recv recv_ok recv_nowait close dropped policy __iter__ __enter__ __exit__",
}


def each(table: dict[Any, str]) -> list[Any]:
    rows = [(owner, name) for owner, names in table.items() for name in names.split()]
    return [pytest.param(owner, name, id=f"{owner.__name__}.{name}") for owner, name in rows]


@pytest.mark.parametrize(("module", "name"), each(NAMES))
def test_name_is_public(module: ModuleType, name: str) -> None:
    assert hasattr(module, name)
    assert name in module.__all__


@pytest.mark.parametrize(("cls", "name"), each(METHODS))
def test_method_exists(cls: type, name: str) -> None:
    assert hasattr(cls, name)


@pytest.mark.parametrize(("module", "name"), [p for p in each(NAMES) if p.values[1] not in ("NIL", "excepthook")])
def test_name_has_a_docstring(module: ModuleType, name: str) -> None:
    assert inspect.getdoc(getattr(module, name))


@pytest.mark.parametrize(
    ("cls", "name"),
    [p for p in each(METHODS) if not p.values[1].startswith("__") and callable(getattr(*p.values))],
)
def test_method_has_a_docstring(cls: type, name: str) -> None:
    assert inspect.getdoc(getattr(cls, name))


@pytest.mark.parametrize("error", [gort.ChanClosed, gort.WouldBlock, gort.Deadlock])
def test_errors_are_exceptions(error: type[BaseException]) -> None:
    assert issubclass(error, Exception)


def test_goroutine_exit_passes_through_except_exception() -> None:
    assert issubclass(gort.GoroutineExit, BaseException)
    assert not issubclass(gort.GoroutineExit, Exception)


@pytest.mark.parametrize("cls", [gort.Goroutine, gort.native.NativeGoroutine])
def test_handles_cannot_be_made_by_hand(cls: type) -> None:
    with pytest.raises(TypeError):
        cls()


def test_sleep_is_one_function_under_two_names() -> None:
    assert gort.time.sleep is gort.sleep


def test_chan_takes_a_type_argument_for_type_checkers() -> None:
    ch = gort.Chan[int](2)
    ch.send(1)
    assert (ch.cap, ch.recv()) == (2, 1)
