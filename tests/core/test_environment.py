"""Options from environment variables, without a command line."""

from typing import Any

import pytest

from crawler.core.environment import drop_service_links, options_from_environment, variables_of
from crawler.core.errors import OptionError
from crawler.core.options import Options
from crawler.core.service_options import ServiceOptions

EMPTY = {variable.name: "" for record in (Options, ServiceOptions) for variable in variables_of(record)}


def read(**environment: str) -> tuple[ServiceOptions, Options]:
    return options_from_environment(ServiceOptions, environment), options_from_environment(Options, environment)


@pytest.mark.parametrize("environment", [{}, EMPTY, {"HOME": "/", "TIMEOUT": "1"}], ids=["none", "empty", "others"])
def test_without_values_the_defaults_hold(environment: dict[str, str]) -> None:
    assert read(**environment) == (ServiceOptions(), Options())


@pytest.mark.parametrize(
    ("name", "text", "field", "expected"),
    [
        ("CRAWLER_TIMEOUT", "2.5", "timeout", 2.5),
        ("CRAWLER_RETRIES", "3", "retries", 3),
        ("CRAWLER_PROCESSES", "3", "processes", 3),
        ("CRAWLER_PROCESSES", "auto", "processes", "auto"),
        ("CRAWLER_USER_AGENT", "5", "user_agent", "5"),
        ("CRAWLER_INSECURE", "1", "insecure", True),
        ("CRAWLER_INSECURE", "Yes", "insecure", True),
        ("CRAWLER_INSECURE", "off", "insecure", False),
        ("CRAWLER_HEADER", "X-One: 1\nX-Two: a b", "headers", {"X-One": "1", "X-Two": "a b"}),
        ("CRAWLER_DNS", "1.1.1.1\n1.0.0.1", "dns", ("1.1.1.1", "1.0.0.1")),
    ],
)
def test_a_value_is_read_by_the_type_of_its_option(name: str, text: str, field: str, expected: Any) -> None:
    assert getattr(read(**{name: text})[1], field) == expected


def test_a_text_that_says_null_is_a_text() -> None:
    assert read(CRAWLER_TLS_CERT="null")[0].tls_cert == "null"


def test_a_second_variable_has_values_between_blanks_or_commas() -> None:
    service, _ = read(CRAWLER_TOKEN="zero\ntwo", CRAWLER_TOKENS="one, two\tread:three")
    assert service.tokens == ("zero", "two", "one", "read:three")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CRAWLER_TIMEOUT", "never"),
        ("CRAWLER_TIMEOUT", "-1"),
        ("CRAWLER_TIMEOUT", "nan"),
        ("CRAWLER_PORT", "http"),
        ("CRAWLER_PORT", "1e3"),
        ("CRAWLER_PORT", "70000"),
        ("CRAWLER_INSECURE", "maybe"),
        ("CRAWLER_METHOD", "PUT"),
        ("CRAWLER_HEADER", "no colon"),
        ("CRAWLER_TOKEN", "one\none:two:three:four"),
        ("CRAWLER_WORKERS", "many"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_variable(name: str, text: str) -> None:
    with pytest.raises(OptionError) as caught:
        read(**{name: text})
    assert caught.value.place == name


@pytest.mark.parametrize(
    ("variables", "left"),
    [
        ({"CRAWLER_PORT": "tcp://10.0.0.1:7777", "CRAWLER_SERVICE_HOST": "10.0.0.1"}, {"CRAWLER_SERVICE_HOST"}),
        ({"CRAWLER_HOST": "tcp://10.0.0.1:7777"}, set()),
        ({"CRAWLER_PORT": "8000", "CRAWLER_HOST": "::1"}, {"CRAWLER_PORT", "CRAWLER_HOST"}),
        ({"CRAWLER_REDIS": "redis://r"}, {"CRAWLER_REDIS"}),
    ],
)
def test_links_to_a_service_named_crawler_are_no_options(variables: dict[str, str], left: set[str]) -> None:
    drop_service_links(variables)
    assert set(variables) == left
