"""The options that a Task may set, and their limits."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.core.errors import OptionError
from crawler.core.options import Options
from crawler.core.task_options import TASK_OPTIONS, apply_stored_options, apply_task_options, task_options

SERVICE = Options(per_host=4, interval=0.5, max_read=1000, guard="public", timeout=7.0, retries=3)
SERVICE_OPTIONS = {
    "allow", "cafile", "cert", "concurrency", "dns", "guard", "key", "processes", "proxy", "resolve", "retry_budget",
    "tls", "workers",
}  # fmt: skip
"""The options that a Task may not set."""


def refusal(values: dict[str, Any], *, strict: bool = True) -> OptionError:
    with pytest.raises(OptionError) as refused:
        apply_task_options(SERVICE, values, strict=strict)
    return refused.value


def test_each_option_can_be_set_per_task_or_not() -> None:
    assert set(Options.__struct_fields__) == TASK_OPTIONS | SERVICE_OPTIONS
    assert not TASK_OPTIONS & SERVICE_OPTIONS


# --- From JSON ---


def test_without_choices_a_task_has_the_options_of_the_service() -> None:
    assert apply_task_options(SERVICE, {}) == SERVICE


def test_a_task_changes_only_the_options_that_it_sets() -> None:
    chosen = apply_task_options(
        SERVICE, {"timeout": 2, "method": "GET", "headers": {"A": "b"}, "accept": ["404"], "match": "x"}
    )
    assert chosen == msgspec.structs.replace(
        SERVICE, timeout=2.0, method="GET", headers={"A": "b"}, accept=("404",), match="x"
    )


@pytest.mark.parametrize("name", sorted(SERVICE_OPTIONS))
def test_a_task_cannot_set_an_option_of_the_service(name: str) -> None:
    error = refusal({name: getattr(SERVICE, name)})
    assert (error.place, error.message) == (name, "cannot be set per Task")


def test_an_unknown_name_is_refused() -> None:
    error = refusal({"bogus": 1})
    assert (error.place, error.message) == ("bogus", "there is no such option")


@pytest.mark.parametrize(
    "values",
    [
        {"timeout": 0},
        {"timeout": 3601},
        {"timeout": "5"},
        {"retries": -1},
        {"method": "POST"},
        {"match": "("},
        {"headers": {"Host": "x"}},
        {"headers": {"A": "\r\n"}},
        {"headers": {"A": "x" * 40_000}},
        {"user_agent": "\n"},
        {"accept": ["1-2"]},
        {"title": 1},
        {"per_host": None},
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(values: dict[str, Any]) -> None:
    assert refusal(values).place in values


@pytest.mark.parametrize(
    ("name", "allowed", "beyond", "message"),
    [
        ("per_host", 4, 5, "must be at most 4, the service's limit"),
        ("interval", 0.5, 0.4, "must be at least 0.5, the service's limit"),
        ("max_read", 1000, 1001, "must be at most 1000, the service's limit"),
    ],
)
def test_a_task_cannot_go_beyond_the_limits_of_the_service(name: str, allowed: Any, beyond: Any, message: str) -> None:
    assert getattr(apply_task_options(SERVICE, {name: allowed}), name) == allowed
    error = refusal({name: beyond})
    assert (error.place, error.message) == (name, message)


def test_one_address_family_replaces_the_other() -> None:
    service = Options(ipv4=True)
    assert apply_task_options(service, {"ipv6": True}) == Options(ipv6=True)
    assert apply_task_options(service, {"ipv4": False}) == Options()
    assert apply_task_options(service, {"ipv6": False}) == service
    with pytest.raises(OptionError, match="excludes"):
        apply_task_options(service, {"ipv4": True, "ipv6": True})


# --- From a query ---


def test_strings_of_a_query_are_read_as_values() -> None:
    values = {
        "timeout": "2.5",
        "retries": "0",
        "title": "true",
        "robots": "1",
        "method": "HEAD",
        "match": "null",
        "headers": "A: b\nC: d: e",
        "accept": "200-299\n404",
    }
    assert apply_task_options(SERVICE, values, strict=False) == msgspec.structs.replace(
        SERVICE,
        timeout=2.5,
        retries=0,
        title=True,
        robots=True,
        method="HEAD",
        match="null",
        headers={"A": "b", "C": "d: e"},
        accept=("200-299", "404"),
    )


def test_values_other_than_strings_are_accepted_too() -> None:
    assert apply_task_options(SERVICE, {"accept": ["404"], "timeout": 2}, strict=False).accept == ("404",)


@pytest.mark.parametrize(
    "values",
    [
        {"timeout": "soon"},
        {"timeout": "nan"},
        {"timeout": ""},
        {"retries": "1.5"},
        {"title": "maybe"},
        {"headers": "no colon"},
        {"headers": ["A: b"]},
        {"accept": 404},
        {"per_host": "5"},
        {"guard": "any"},
    ],
)
def test_strings_without_a_valid_value_are_refused_by_name(values: dict[str, Any]) -> None:
    assert refusal(values, strict=False).place in values


NAMES = st.sampled_from([*Options.__struct_fields__, "bogus"])
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["1", "0.5", "-1", "true", "null", "A: b", "200-299", "GET", "1e9", "inf"]
)


@given(st.dictionaries(NAMES, TEXTS, max_size=4))
def test_any_query_is_accepted_or_refused(values: dict[str, str]) -> None:
    try:
        chosen = apply_task_options(SERVICE, values, strict=False)
    except OptionError as error:
        assert error.place.split("[")[0] in values or error.place == "ipv4"
    else:
        assert chosen.validated() == chosen
        for name in SERVICE_OPTIONS:
            assert getattr(chosen, name) == getattr(SERVICE, name)


# --- Stored options ---


def test_task_options_are_shown_in_the_order_of_the_fields() -> None:
    shown = task_options(apply_task_options(SERVICE, {"match": "x", "retries": 0}))
    assert list(shown) == [name for name in Options.__struct_fields__ if name in TASK_OPTIONS]
    assert (shown["match"], shown["retries"], shown["timeout"]) == ("x", 0, 7.0)
    assert apply_task_options(SERVICE, msgspec.to_builtins(shown)).match == "x"


def test_a_task_keeps_its_options_under_a_service_that_has_changed() -> None:
    stored = apply_task_options(SERVICE, {"timeout": 2, "headers": {"A": "b"}, "ipv6": True})
    service = Options(per_host=50, concurrency=7, proxy="http://127.0.0.1:1", ipv4=True)
    resumed = apply_stored_options(service, stored)
    assert task_options(resumed) == task_options(stored)
    for name in SERVICE_OPTIONS:
        assert getattr(resumed, name) == getattr(service, name)


def test_a_stricter_service_limits_stored_options() -> None:
    stored = apply_task_options(SERVICE, {"per_host": 4, "interval": 0.5, "max_read": 1000})
    resumed = apply_stored_options(Options(per_host=2, interval=3.0, max_read=10), stored)
    assert (resumed.per_host, resumed.interval, resumed.max_read) == (2, 3.0, 10)
