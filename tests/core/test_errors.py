"""The exceptions and the table of failures."""

import re
from typing import NamedTuple

import pytest

import crawler
from crawler import Options
from crawler.core import errors
from crawler.core.error_advice import ERROR_ADVICE
from crawler.core.error_types import ERROR_TYPES
from crawler.core.errors import CrawlerError, InputError, OptionError, TaskNotFound, TransitionError

# The table of the contract: the words in `errors.http` of `/tasks`, each with its values of `error.type`.
GROUPS = {
    "DNS_ERROR": ["dns.name_not_resolved", "dns.failed"],
    "TIMEOUT": ["dns.timed_out", "tcp.timed_out", "tls.timed_out", "http.timed_out"],
    "CONNECTION_ERROR": [
        "tcp.refused",
        "tcp.reset",
        "tcp.closed",
        "tcp.aborted",
        "tcp.address_unreachable",
        "tcp.failed",
    ],
    "SSL_ERROR": [
        "tls.cert.name_invalid",
        "tls.cert.date_invalid",
        "tls.cert.authority_invalid",
        "tls.cert.invalid",
        "tls.version_or_cipher_mismatch",
        "tls.bad_client_auth_cert",
        "tls.unrecognized_name_alert",
        "tls.protocol.error",
        "tls.failed",
    ],
    "TOO_MANY_REDIRECTS": ["http.response.redirect_loop"],
    "HTTP_ERROR": ["http.protocol.error", "http.response.invalid", "http.failed"],
    "INVALID_URL": ["url.invalid", "url.scheme"],
    "BLOCKED": ["address.blocked", "robots.disallowed"],
    "PROXY_ERROR": [
        "proxy.unreachable",
        "proxy.timed_out",
        "proxy.failed",
        "proxy.refused",
        "proxy.auth_required",
        "proxy.protocol.error",
        "proxy.tls.failed",
    ],
    "LOCAL_ERROR": [
        "dns.unreachable",
        "local.descriptors",
        "local.ports",
        "local.memory",
        "local.network",
        "local.paused",
    ],
    "ABANDONED": ["abandoned"],
    "UNKNOWN": ["unknown"],
}


class Phase(NamedTuple):
    """The phases in which the types of one prefix happen by default."""

    prefix: str
    phases: set[str]


PHASES = [
    Phase("dns.", {"dns"}),
    Phase("tcp.", {"connect", "http"}),
    Phase("proxy.", {"connect"}),
    Phase("tls.", {"tls"}),
    Phase("http.", {"http"}),
    Phase("url.", {"url"}),
    Phase("address.", {"connect"}),
    Phase("robots.", {"url"}),
    Phase("local.paused", {"http"}),
    Phase("local.", {"connect"}),
]


def test_the_types_and_their_groups_are_those_of_the_contract() -> None:
    assert {type_: row.group for type_, row in ERROR_TYPES.items()} == {
        type_: group for group, types in GROUPS.items() for type_ in types
    }


@pytest.mark.parametrize("type_", ERROR_TYPES)
def test_a_type_happens_in_the_phase_of_its_name(type_: str) -> None:
    phases = next((phase.phases for phase in PHASES if type_.startswith(phase.prefix)), {"http"})
    assert ERROR_TYPES[type_].phase in phases


def test_failures_of_an_open_connection_have_the_phase_http() -> None:
    http = {type_ for type_, row in ERROR_TYPES.items() if type_.startswith("tcp.") and row.phase == "http"}
    assert http == {"tcp.reset", "tcp.closed"}


@pytest.mark.parametrize("type_", ERROR_TYPES)
def test_a_type_is_explained_in_one_line(type_: str) -> None:
    meaning = ERROR_TYPES[type_].meaning
    assert re.fullmatch(r"[^\n]{10,98}[^\n.]", meaning)


@pytest.mark.parametrize("type_", ERROR_TYPES)
def test_a_type_says_what_to_try_in_one_sentence(type_: str) -> None:
    assert re.fullmatch(r"[A-Z][^\n.]{9,118}\.", ERROR_ADVICE[type_].replace("1.2", "12"))


def test_only_types_that_exist_have_advice() -> None:
    assert list(ERROR_ADVICE) == list(ERROR_TYPES)


def test_what_to_try_names_options_that_exist() -> None:
    named = {flag for advice in ERROR_ADVICE.values() for flag in re.findall(r"--([a-z-]+)", advice)}
    assert {flag.replace("-", "_") for flag in named} <= set(Options.__struct_fields__)


def test_only_failures_that_may_pass_are_transient() -> None:
    lasting = {type_ for type_, row in ERROR_TYPES.items() if not row.transient}
    assert {
        "dns.name_not_resolved",
        "url.invalid",
        "url.scheme",
        "address.blocked",
        "robots.disallowed",
        "unknown",
    } <= lasting
    assert {type_ for type_ in ERROR_TYPES if type_.startswith("tls.cert.")} <= lasting
    for type_, row in ERROR_TYPES.items():
        if row.group in ("TIMEOUT", "CONNECTION_ERROR", "LOCAL_ERROR"):
            assert row.transient, type_


# --- The tree ---


def test_every_exception_has_one_base_class() -> None:
    tree = [errors.InputError, errors.OptionError, errors.TaskNotFound, errors.TransitionError]
    assert all(issubclass(error, CrawlerError) for error in tree)
    assert issubclass(OptionError, InputError)
    assert not issubclass(TaskNotFound, InputError)
    assert not issubclass(CrawlerError, ValueError)  # msgspec would swallow it


def test_the_docstring_draws_the_tree() -> None:
    drawn = re.findall(r"^ {4}((?:│   )*)[├└]── (\w+)", errors.__doc__ or "", re.M)
    bases: list[type] = [CrawlerError]
    for indent, name in drawn:
        error = getattr(errors, name)
        bases = [*bases[: 1 + len(indent) // 4], error]
        assert error.__bases__ == (bases[-2],), name
    outer = [name for indent, name in drawn if not indent]
    assert outer == sorted(outer)
    defined = {error.__name__ for error in vars(errors).values() if isinstance(error, type) and is_ours(error)}
    assert defined == {"CrawlerError", *(name for _, name in drawn)}


def is_ours(error: type) -> bool:
    return issubclass(error, CrawlerError)


def test_every_error_is_public() -> None:
    for name in ("CrawlerError", "InputError", "OptionError", "TaskNotFound", "TransitionError"):
        assert getattr(crawler, name) is getattr(errors, name)


def test_an_input_error_names_the_place() -> None:
    error = InputError("is not a URL", "$.urls[3]")
    assert (error.message, error.place, str(error)) == ("is not a URL", "$.urls[3]", "$.urls[3]: is not a URL")
    assert str(InputError("is empty")) == "is empty"


def test_a_task_not_found_cannot_forge_a_log_line() -> None:
    error = TaskNotFound("x\nforged")
    assert error.task_id == "x\nforged"
    assert str(error) == r"no Task 'x\nforged'"


def test_a_transition_error_names_both_statuses() -> None:
    assert str(TransitionError("from a to b")) == "from a to b"
