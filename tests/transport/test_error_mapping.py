"""Every exception that probing can meet has a rule, and every rule gives an error type that exists."""

import ast
import asyncio
import builtins
import errno
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import aiodns
import pycares
import pytest
from hypothesis import given
from hypothesis import strategies as st

import crawler
from crawler.core.error_types import ERROR_TYPES
from crawler.core.results import ProbeError
from crawler.transport import error_tables
from crawler.transport.error_mapping import HopError, explain, rule_of
from crawler.transport.tls.messages import SSL_REASON_MESSAGES, VERIFY_CODE_MESSAGES

PHASES = ["dns", "connect", "tls", "http"]
VERIFY_CODES = range(100)  # OpenSSL's X509_V_ERR_*; it has 0 to 96

# Errors of a program, not of a target; nothing more can be said about them than `unknown`.
PROGRAM_ERRORS = {
    "asyncio.QueueEmpty",
    "asyncio.QueueFull",
    "asyncio.QueueShutDown",
    "asyncio.BrokenBarrierError",
    "asyncio.InvalidStateError",
    "asyncio.SendfileNotAvailableError",
}


def kind(error: BaseException, phase: str = "http") -> str:
    return explain(error, phase).type


# --- Every exception has a rule ---


def exceptions(module: ModuleType) -> set[type[BaseException]]:
    """Return the public exception classes that a module exports and its package defines."""
    package = module.__name__.partition(".")[0]
    return {
        item
        for name, item in vars(module).items()
        if isinstance(item, type) and issubclass(item, BaseException) and not name.startswith("_")
        if item.__module__.partition(".")[0] in (package, "builtins", "concurrent")
    }


def below(error: type[BaseException]) -> Iterator[type[BaseException]]:
    yield error
    for child in error.__subclasses__():
        yield from below(child)


def named(errors: set[type[BaseException]], package: str) -> set[str]:
    return {f"{package}.{error.__name__}" for error in errors}


def without_rule(errors: set[type[BaseException]]) -> set[type[BaseException]]:
    return {error for error in errors if rule_of(error) is None}


# Python's own exceptions; those that say nothing about a network are bugs.
BUILTIN = {error for error in vars(builtins).values() if isinstance(error, type) and issubclass(error, BaseException)}
SYSTEMS: tuple[type[BaseException], ...] = (OSError, EOFError, MemoryError, UnicodeError)
OF_THE_SYSTEM = {error for error in BUILTIN if issubclass(error, SYSTEMS) and error.__base__ is not UnicodeError}


def test_every_exception_of_the_operating_system_has_a_rule() -> None:
    assert ConnectionRefusedError in OF_THE_SYSTEM
    assert without_rule(OF_THE_SYSTEM) == set()


@pytest.mark.parametrize("module", [ssl, socket, asyncio, aiodns.error], ids=lambda module: module.__name__)
def test_every_exception_of_a_library_has_a_rule(module: ModuleType) -> None:
    package = module.__name__.partition(".")[0]
    missing = without_rule(exceptions(module) - (BUILTIN - OF_THE_SYSTEM))
    assert named(missing, package) - PROGRAM_ERRORS == set()


def test_every_subclass_has_a_rule() -> None:
    found = {error for top in (ssl.SSLError, aiodns.error.DNSError) for error in below(top)}
    found = {error for error in found if error.__module__.partition(".")[0] in ("ssl", "aiodns", "pycares")}
    assert without_rule(found) == set()


def test_every_status_of_c_ares_has_a_rule() -> None:
    codes = {code: name for name, code in vars(pycares.errno).items() if name.startswith("ARES_")}
    del codes[pycares.errno.ARES_SUCCESS]
    assert len(codes) >= 25
    assert {name for code, name in codes.items() if code not in error_tables.CARES_TYPES} == set()


def test_an_exception_without_a_rule_is_unknown() -> None:
    for error in (asyncio.QueueEmpty(), asyncio.InvalidStateError(), ValueError("x"), KeyError("x"), AssertionError()):
        assert kind(error) == "unknown"


# --- Every error type has a source ---


def types_of_the_tables() -> set[str]:
    tables: list[dict[Any, str]] = [
        table for name, table in vars(error_tables).items() if name.isupper() and isinstance(table, dict)
    ]
    assert len(tables) == 7
    return {type_ for table in tables for type_ in table.values()}


def test_the_tables_name_only_types_that_exist() -> None:
    assert types_of_the_tables() - {error_tables.BY_PHASE} <= ERROR_TYPES.keys()


def test_every_type_is_given_by_a_table_or_named_in_the_code() -> None:
    written = {
        node.value
        for path in Path(crawler.__file__).parent.rglob("*.py")
        if path.name != "error_types.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert ERROR_TYPES.keys() - written == set()


# --- Which rule applies ---


@pytest.mark.parametrize(
    ("phase", "expected"),
    [("dns", "dns.timed_out"), ("connect", "tcp.timed_out"), ("tls", "tls.timed_out"), ("http", "http.timed_out")],
)
@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_timeout_has_the_type_of_its_phase(error: Exception, phase: str, expected: str) -> None:
    problem = explain(error, phase)
    assert (problem.type, problem.phase, problem.group, problem.transient) == (expected, phase, "TIMEOUT", True)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ECONNREFUSED, "tcp.refused"),
        (errno.ECONNRESET, "tcp.reset"),
        (errno.EPIPE, "tcp.closed"),
        (errno.ENETUNREACH, "tcp.address_unreachable"),
        (errno.EHOSTUNREACH, "tcp.address_unreachable"),
        (errno.EADDRNOTAVAIL, "local.ports"),
        (errno.EMFILE, "local.descriptors"),
        (errno.ENFILE, "local.descriptors"),
        (errno.ENETDOWN, "local.network"),
        (errno.ENOBUFS, "local.memory"),
        (errno.EDOM, "tcp.failed"),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else value,
)
def test_errno_decides(number: int, expected: str) -> None:
    problem = explain(OSError(number, "as the system says"), "http")
    assert (problem.type, problem.message) == (expected, "as the system says")


def test_local_faults_are_not_faults_of_the_target() -> None:
    for number in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENOBUFS, errno.ENOMEM):
        problem = explain(OSError(number, "x"), "connect")
        assert (problem.group, problem.transient) == ("LOCAL_ERROR", True)


def test_a_connection_closed_while_connecting_is_aborted() -> None:
    assert kind(ConnectionAbortedError(), "connect") == "tcp.aborted"
    assert kind(BrokenPipeError(), "connect") == "tcp.aborted"
    assert kind(EOFError(), "connect") == "tcp.aborted"
    assert kind(EOFError(), "tls") == "tcp.closed"


@pytest.mark.parametrize(
    ("reason", "expected", "words"),
    [
        ("WRONG_VERSION_NUMBER", "tls.protocol.error", "plain HTTP"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "tls.version_or_cipher_mismatch", "TLS 1.1 or older"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "tls.version_or_cipher_mismatch", "every TLS version and cipher"),
        ("TLSV1_UNRECOGNIZED_NAME", "tls.unrecognized_name_alert", "does not know this host name"),
        ("TLSV1_ALERT_NO_APPLICATION_PROTOCOL", "tls.protocol.error", "accepts no HTTP version"),
        ("EXCESSIVE_MESSAGE_SIZE", "tls.protocol.error", "too large"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "tls.bad_client_auth_cert", "wants a client certificate"),
        ("UNEXPECTED_EOF_WHILE_READING", "tcp.closed", "closed the connection during TLS"),
        ("SOMETHING_NEW", "tls.failed", "something new"),
        (None, "tls.failed", ""),
    ],
)
def test_openssls_reason_decides(reason: str | None, expected: str, words: str) -> None:
    error = ssl.SSLError(1, "[SSL: X] x (_ssl.c:1006)")
    error.reason = reason  # type: ignore[assignment]
    assert kind(error, "tls") == expected
    assert words in explain(error, "tls").message


def test_each_reason_of_a_refusal_is_told_in_words() -> None:
    assert error_tables.SSL_REASON_TYPES.keys() - SSL_REASON_MESSAGES.keys() == set()
    codes = {code for code in error_tables.VERIFY_CODE_TYPES if code not in VERIFY_CODE_MESSAGES}
    assert codes == set()
    jargon = re.compile(r"sslv3|tlsv1|alert\b|eof|wrong version number", re.IGNORECASE)
    for message in [*SSL_REASON_MESSAGES.values(), *VERIFY_CODE_MESSAGES.values()]:
        assert not jargon.search(message.replace("an unknown alert", ""))


def certificate_error(code: int, message: str = "certificate has expired") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, f"certificate verify failed: {message} (_ssl.c:1006)")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("code", "expected"),
    [(10, "date"), (9, "date"), (18, "authority"), (19, "authority"), (20, "authority"), (62, "name"), (64, "name")],
)
def test_openssls_verify_code_decides(code: int, expected: str) -> None:
    error = certificate_error(code)
    assert kind(error, "tls") == f"tls.cert.{expected}_invalid"
    assert explain(error, "tls").message == VERIFY_CODE_MESSAGES[code]


def test_another_verify_code_is_still_a_certificate_error() -> None:
    assert kind(certificate_error(23), "tls") == "tls.cert.invalid"
    assert kind(ssl.SSLCertVerificationError("without a code"), "tls") == "tls.cert.invalid"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (aiodns.error.ARES_ENOTFOUND, "dns.name_not_resolved"),
        (aiodns.error.ARES_ENODATA, "dns.name_not_resolved"),
        (aiodns.error.ARES_ETIMEOUT, "dns.timed_out"),
        (aiodns.error.ARES_ECONNREFUSED, "dns.unreachable"),
        (aiodns.error.ARES_ESERVFAIL, "dns.failed"),
        (aiodns.error.ARES_ECANCELLED, "abandoned"),
        (-1, "dns.failed"),
    ],
)
def test_the_status_of_c_ares_decides(code: int, expected: str) -> None:
    error = aiodns.error.DNSError(code, "as c-ares says")
    assert (kind(error, "dns"), explain(error, "dns").message) == (expected, "as c-ares says")


# --- Any exception at all ---


def instances_of(error: type[BaseException]) -> list[BaseException]:
    """Make instances of a class with all arguments that it accepts."""
    instances: list[BaseException] = []
    for arguments in (
        (),
        ("text",),
        (1, "text"),
        (b"partial", 10),
        ("text", 10),
        ("text", b"line", 10),
        (b"expected", b"got", "a.example", 443),
        ("http://a/", "description"),
        ("text", "10", "20"),
    ):
        try:
            instance = error(*arguments)
            str(instance)  # some take anything and fail here
        except (TypeError, ValueError, AttributeError):
            continue
        instances.append(instance)
    return instances


CLASSES = [*error_tables.CLASS_RULES, Exception, RuntimeError, KeyError, asyncio.QueueEmpty]


def test_an_end_of_the_stream_is_told_in_words() -> None:
    """The exception's own text is "0 bytes read on a total of 3 expected bytes"."""
    error = explain(asyncio.IncompleteReadError(b"", 3), "http")
    assert (error.type, error.message) == ("tcp.closed", ERROR_TYPES["tcp.closed"].meaning)


def test_a_hop_error_keeps_its_problem() -> None:
    problem = ProbeError.of("address.blocked", "as we said")
    assert explain(HopError(problem), "http") is problem


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: f"{error.__module__}.{error.__name__}")
@pytest.mark.parametrize("phase", PHASES)
def test_every_class_is_explained(error: type[BaseException], phase: str) -> None:
    instances = instances_of(error)
    assert instances
    for instance in instances:
        check_explanation(instance, phase)


def check_explanation(error: BaseException, phase: str) -> None:
    problem = explain(error, phase)
    assert problem.type in ERROR_TYPES
    assert problem.phase == phase
    assert problem.transient == ERROR_TYPES[problem.type].transient
    assert 0 < len(problem.message) <= 300
    assert len(problem.message.splitlines()) == 1


WORDS = st.one_of(st.text(max_size=20), st.text(st.sampled_from("a\r\n\0\x1b\u2028 "), min_size=200, max_size=900))
SYSTEM = st.one_of(
    st.builds(OSError, st.integers(-1, 200), WORDS),
    st.builds(OSError, WORDS),
    st.builds(socket.gaierror, st.integers(-20, 20), WORDS),
    st.builds(certificate_error, st.sampled_from(VERIFY_CODES), WORDS),
    st.builds(ssl.SSLError, st.integers(0, 20), WORDS),
)
ANY_ERROR = st.one_of(
    SYSTEM,
    st.builds(aiodns.error.DNSError, st.integers(-1, 40), WORDS),
    st.builds(Exception, WORDS, st.integers()),
)


@given(ANY_ERROR, st.sampled_from(PHASES))
def test_any_instance_is_explained_in_one_bounded_line(error: BaseException, phase: str) -> None:
    check_explanation(error, phase)
