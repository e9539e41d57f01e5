"""What a Task may choose of the options, and how far."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.core.errors import OptionError
from crawler.core.options import TASK_OPTIONS, Options, task_options

SERVICE = Options(per_host=4, interval=0.5, max_read=1000, guard="public", timeout=7.0, retries=3)
ITS_OWN = {
    "allow", "cafile", "concurrency", "dns", "guard", "processes", "proxy", "resolve", "retry_budget", "transport",
    "workers",
}  # fmt: skip
"""The service's alone."""


def refusal(values: dict[str, Any], *, strict: bool = True) -> OptionError:
    with pytest.raises(OptionError) as refused:
        SERVICE.with_task_options(values, strict=strict)
    return refused.value


def test_every_option_is_a_tasks_or_the_services() -> None:
    assert set(Options.__struct_fields__) == TASK_OPTIONS | ITS_OWN
    assert not TASK_OPTIONS & ITS_OWN


# --- Choosing ---


def test_who_chooses_nothing_gets_what_the_service_has() -> None:
    assert SERVICE.with_task_options({}) == SERVICE


def test_what_is_chosen_stands_and_all_else_is_the_services() -> None:
    chosen = SERVICE.with_task_options(
        {"timeout": 2, "method": "GET", "headers": {"A": "b"}, "accept": ["404"], "match": "x"}
    )
    assert chosen == msgspec.structs.replace(
        SERVICE, timeout=2.0, method="GET", headers={"A": "b"}, accept=("404",), match="x"
    )


@pytest.mark.parametrize("name", sorted(ITS_OWN))
def test_what_is_the_services_is_not_for_a_task(name: str) -> None:
    error = refusal({name: getattr(SERVICE, name)})
    assert (error.place, error.message) == (name, "is the service's to choose")


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
        ("per_host", 4, 5, "at most 4, the service's"),
        ("interval", 0.5, 0.4, "at least 0.5, the service's"),
        ("max_read", 1000, 1001, "at most 1000, the service's"),
    ],
)
def test_a_task_is_as_gentle_as_the_service_or_more(name: str, allowed: Any, beyond: Any, message: str) -> None:
    assert getattr(SERVICE.with_task_options({name: allowed}), name) == allowed
    error = refusal({name: beyond})
    assert (error.place, error.message) == (name, message)


def test_one_address_family_replaces_the_other() -> None:
    service = Options(ipv4=True)
    assert service.with_task_options({"ipv6": True}) == Options(ipv6=True)
    assert service.with_task_options({"ipv4": False}) == Options()
    assert service.with_task_options({"ipv6": False}) == service
    with pytest.raises(OptionError, match="excludes"):
        service.with_task_options({"ipv4": True, "ipv6": True})


# --- From a query ---


def test_texts_stand_for_what_they_say() -> None:
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
    assert SERVICE.with_task_options(values, strict=False) == msgspec.structs.replace(
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


def test_values_that_are_no_texts_are_taken_there_too() -> None:
    assert SERVICE.with_task_options({"accept": ["404"], "timeout": 2}, strict=False).accept == ("404",)


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
def test_texts_that_say_nothing_are_refused_by_name(values: dict[str, Any]) -> None:
    assert refusal(values, strict=False).place in values


NAMES = st.sampled_from([*Options.__struct_fields__, "bogus"])
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["1", "0.5", "-1", "true", "null", "A: b", "200-299", "GET", "1e9", "inf"]
)


@given(st.dictionaries(NAMES, TEXTS, max_size=4))
def test_any_query_is_a_choice_or_refused(values: dict[str, str]) -> None:
    try:
        chosen = SERVICE.with_task_options(values, strict=False)
    except OptionError as error:
        assert error.place.split("[")[0] in values or error.place == "ipv4"
    else:
        assert chosen.validated() == chosen
        for name in ITS_OWN:
            assert getattr(chosen, name) == getattr(SERVICE, name)


# --- Later ---


def test_choices_are_shown_in_the_order_of_the_options() -> None:
    shown = task_options(SERVICE.with_task_options({"match": "x", "retries": 0}))
    assert list(shown) == [name for name in Options.__struct_fields__ if name in TASK_OPTIONS]
    assert (shown["match"], shown["retries"], shown["timeout"]) == ("x", 0, 7.0)
    assert SERVICE.with_task_options(msgspec.to_builtins(shown)).match == "x"


def test_a_task_goes_on_with_its_choices_under_a_service_that_has_changed() -> None:
    stored = SERVICE.with_task_options({"timeout": 2, "headers": {"A": "b"}, "ipv6": True})
    service = Options(per_host=50, concurrency=7, proxy="http://127.0.0.1:1", ipv4=True)
    resumed = service.with_stored(stored)
    assert task_options(resumed) == task_options(stored)
    for name in ITS_OWN:
        assert getattr(resumed, name) == getattr(service, name)


def test_what_a_stricter_service_no_longer_allows_is_cut() -> None:
    stored = SERVICE.with_task_options({"per_host": 4, "interval": 0.5, "max_read": 1000})
    resumed = Options(per_host=2, interval=3.0, max_read=10).with_stored(stored)
    assert (resumed.per_host, resumed.interval, resumed.max_read) == (2, 3.0, 10)
