"""Every option, its bounds and its default."""

import ast
import math
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.inspect import (
    BoolType,
    DictType,
    FloatType,
    IntType,
    LiteralType,
    Metadata,
    StrType,
    StructType,
    UnionType,
    VarTupleType,
    type_info,
)

import crawler
from crawler.core.errors import CrawlerError, InputError, OptionError
from crawler.core.option_syntax import parse_resolve, parse_server, parse_statuses
from crawler.core.options import CheckedOptions, Options
from crawler.core.service_options import ServiceOptions

RECORDS: list[type[CheckedOptions]] = [Options, ServiceOptions]


def refused(record: type[CheckedOptions], values: dict[str, Any]) -> OptionError:
    with pytest.raises(OptionError) as caught:
        record.of(values)
    return caught.value


def refusal(**values: Any) -> OptionError:
    return refused(Options, values)


def fields(record: type[CheckedOptions]) -> dict[str, Any]:
    """The types of a record's fields, as `msgspec.inspect` describes them."""
    described = type_info(record)
    assert isinstance(described, StructType)
    found = {}
    for field in described.fields:
        assert isinstance(field.type, Metadata)
        found[field.name] = field.type.type
    return found


BOUNDS = [
    (record, name, type_)
    for record in RECORDS
    for name, type_ in fields(record).items()
    if isinstance(type_, IntType | FloatType)
]
"""Record, name and bounds of every number."""


# --- Defaults ---


@pytest.mark.parametrize("record", RECORDS)
def test_every_default_is_within_its_own_bounds(record: type[CheckedOptions]) -> None:
    assert record.of(msgspec.to_builtins(record())) == record() == record.of({})


@pytest.mark.parametrize("record", RECORDS)
def test_every_option_has_a_help_text(record: type[CheckedOptions]) -> None:
    described = type_info(record)
    assert isinstance(described, StructType)
    for field in described.fields:
        assert isinstance(field.type, Metadata)
        description = (field.type.extra_json_schema or {}).get("description", "")
        assert description.endswith("."), field.name
        assert description[:1].isupper() or description.startswith("auto "), field.name


def test_every_number_has_bounds() -> None:
    assert {name for _, name, _ in BOUNDS} >= {"concurrency", "per_host", "timeout", "retries", "port", "max_body"}
    for _, name, bounds in BOUNDS:
        assert bounds.ge is not None or bounds.gt is not None, name


def test_the_customary_port_is_7777_on_this_machine_only() -> None:
    assert (ServiceOptions().host, ServiceOptions().port) == ("127.0.0.1", 7777)


@pytest.mark.parametrize("number", [3, "auto"])
def test_workers_is_an_old_name_of_processes(number: Any) -> None:
    for options in (
        Options(workers=number),
        Options.of({"workers": number}),
        Options.of({"workers": number, "processes": number}),
        msgspec.json.decode(msgspec.json.encode({"workers": number}), type=Options),  # as an old store has it
    ):
        assert options == Options(processes=number)
        assert msgspec.structs.replace(options, processes=2).processes == 2
    with pytest.raises(OptionError, match="old name of processes"):
        Options(workers=number, processes=2)


def test_no_other_function_repeats_a_default() -> None:
    ours = {name: default for record in RECORDS for name, default in msgspec.structs.asdict(record()).items()}
    package = Path(crawler.__file__).parent
    repeated = [
        f"{path.name}: {function.name}({name}={value!r})"
        for path in package.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for name, value in literal_defaults(function)
        if value and ours.get(name) == value  # 0, () and False switch something off and may stand anywhere
    ]
    assert repeated == []


def literal_defaults(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, Any]]:
    """The parameters with a literal default, and the default."""
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [None] * (len(positional) - len(spec.defaults)) + spec.defaults + spec.kw_defaults
    for parameter, default in zip([*positional, *spec.kwonlyargs], defaults, strict=True):
        if default is not None:
            with suppress(ValueError):  # not a literal
                yield parameter.arg, ast.literal_eval(default)


# --- Refusals ---


@pytest.mark.parametrize("record", RECORDS)
def test_unknown_options_are_refused_by_name(record: type[CheckedOptions]) -> None:
    error = refused(record, {"bogus": 1})
    assert error.place == "options"
    assert "`bogus`" in error.message
    assert isinstance(error, InputError)
    assert isinstance(error, CrawlerError)


WRONG: dict[type, list[Any]] = {
    IntType: ["8", 8.5, True, None, [8], {}],
    FloatType: ["30", True, None, []],
    BoolType: [1, 0, "yes", None],
    StrType: [1, None, b"x", []],
    LiteralType: [1, None, ["GET"]],
    UnionType: [1, True, []],
    DictType: [[], "A: b", None, 1],
    VarTupleType: ["1.1.1.1", 1, None, {}],
}
"""Values that no option of this type accepts."""
WRONG_OF: dict[str, list[Any]] = {"processes": [1.5, None, [], True], "workers": [1.5, [], True]}


def wrong_types() -> Iterator[tuple[type[CheckedOptions], str, Any]]:
    for record in RECORDS:
        for name, type_ in fields(record).items():
            for value in WRONG_OF.get(name, WRONG[type(type_)]):
                yield record, name, value


@pytest.mark.parametrize(("record", "name", "value"), list(wrong_types()))
def test_wrong_types_are_refused_with_the_place(record: type[CheckedOptions], name: str, value: Any) -> None:
    error = refused(record, {name: value})
    assert error.place == name
    assert "Expected" in error.message or "is none of" in error.message or "is not of the form" in error.message
    assert str(error) == f"{name}: {error.message}"


@pytest.mark.parametrize(("record", "name", "bounds"), BOUNDS)
def test_values_out_of_bounds_are_refused_with_the_place(
    record: type[CheckedOptions], name: str, bounds: IntType | FloatType
) -> None:
    beyond = {
        *([bounds.ge - 1] if bounds.ge is not None else []),
        *([bounds.gt] if bounds.gt is not None else []),
        *([bounds.le + 1] if bounds.le is not None else []),
    }
    for value in beyond:
        assert refused(record, {name: value}).place == name
    for allowed in {bounds.ge, bounds.le} - {None}:
        assert getattr(record.of({name: allowed}), name) == allowed


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 1e308])
@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
def test_a_time_is_a_number_of_seconds(name: str, value: float) -> None:
    assert refusal(**{name: value}).place == name


@pytest.mark.parametrize("value", ["", "PUT", "get", "POST", "HEAD ", "DELETE"])
def test_methods_are_head_and_get(value: str) -> None:
    assert refusal(method=value).place == "method"


def test_wrong_values_inside_are_refused_with_the_place() -> None:
    assert refusal(headers={"A": 1}).place == "headers[...]"
    assert refusal(dns=[1]).place == "dns[0]"


def test_ipv4_and_ipv6_exclude_each_other() -> None:
    assert refusal(ipv4=True, ipv6=True).place == "ipv4"
    assert "ipv6" in refusal(ipv4=True, ipv6=True).message
    assert Options.of({"ipv4": True}).ipv4
    assert Options.of({"ipv6": True}).ipv6


def test_options_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Options().retries = 2  # type: ignore[misc]


# --- Headers ---


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-Probe", "1"), ("x!#$%&'*+-.^_`|~9", ""), ("Accept", "text/html, */*;q=0.8"), ("A", "tab\tin\x80it \xff")],
)
def test_valid_headers_are_accepted_unchanged(name: str, value: str) -> None:
    assert Options.of({"headers": {name: value}}).headers == {name: value}


@pytest.mark.parametrize(
    "name", ["", " ", "A B", "A:", ":", "A\r\n", "A\n", "A\0", "A\t", "\u00e4", "A\ud800", "(A)", 'A"', "A,", "A\x7f"]
)
def test_header_names_are_tokens(name: str) -> None:
    error = refusal(headers={name: "x"})
    assert error.place == "headers"
    assert "is not a header name" in error.message


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\r\nHost: b", "a\0", "\x1b[0m", "\x7f", "\u0100", "\ud800", "a\n"])
def test_header_values_cannot_split_a_request(value: str) -> None:
    error = refusal(headers={"X-Probe": value})
    assert error.place == "headers"
    assert error.message == "the value of X-Probe has a control character or a character outside Latin-1"
    assert refusal(user_agent=value).place == "user_agent"


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
    ],
)
@pytest.mark.parametrize("spelt", [str, str.lower, str.upper])
def test_framing_and_hop_by_hop_headers_cannot_be_set(name: str, spelt: Any) -> None:
    error = refusal(headers={spelt(name): "x"})
    assert error.place == "headers"
    assert "cannot be changed" in error.message


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=3))
def test_any_headers_are_safe_on_the_wire_or_refused(headers: dict[str, str]) -> None:
    try:
        accepted = Options.of({"headers": headers}).headers
    except OptionError as error:
        assert error.place == "headers"
    else:
        for name, value in accepted.items():
            line = f"{name}: {value}".encode("latin-1")
            assert not set(line) & {0, 10, 13}
            assert name
            assert ":" not in name


def test_headers_are_limited_in_size() -> None:
    assert Options.of({"headers": {"A": "x" * 30_000}})
    assert refusal(headers={"A": "x" * 20_000, "B": "x" * 20_000}).message == "more than 32768 bytes in total"


# --- Statuses ---


@pytest.mark.parametrize(
    ("texts", "some", "count"),
    [
        (("200",), {200}, 1),
        (("200-299",), {200, 204, 299}, 100),
        (("200-299", "404", "404-404"), {200, 404}, 101),
        (("100-999",), {100, 999}, 900),
    ],
)
def test_statuses_that_count_as_ok(texts: tuple[str, ...], some: set[int], count: int) -> None:
    statuses = parse_statuses(texts)
    assert some <= statuses
    assert len(statuses) == count
    options = Options.of({"accept": texts})
    assert all(options.accepts(status) is (status in statuses) for status in range(100, 1000))


def test_without_statuses_all_below_400_count_as_ok() -> None:
    assert [status for status in range(100, 1000) if Options().accepts(status)] == list(range(100, 400))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2xx",
        "99",
        "1000",
        "099",
        "200-",
        "-299",
        "299-200",
        "200-2999",
        " 200",
        "200\n",
        "200,404",
        "\u0662\u0660\u0660",
    ],
)
def test_other_texts_are_not_statuses(text: str) -> None:
    error = refusal(accept=["200", text])
    assert error.place == "accept"
    assert error.message.startswith(repr(text))


def test_the_number_of_status_ranges_is_limited() -> None:
    assert refusal(accept=["100-999"] * 101).place == "accept"


@given(st.lists(st.text(max_size=8) | st.from_regex(r"[0-9]{2,4}(-[0-9]{2,4})?", fullmatch=True), max_size=3))
def test_any_texts_are_statuses_or_refused(texts: list[str]) -> None:
    try:
        statuses = parse_statuses(tuple(texts))
    except OptionError as error:
        assert error.place == "accept"
    else:
        assert statuses <= set(range(100, 1000))
        assert bool(statuses) is bool(texts)


# --- DNS servers ---


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("1.1.1.1", ("1.1.1.1", 53)),
        ("1.1.1.1:5353", ("1.1.1.1", 5353)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
        ("::1", ("::1", 53)),
        ("[::1]", ("::1", 53)),
        ("[::1]:53", ("::1", 53)),
        ("[2606:4700:4700::1111]:5353", ("2606:4700:4700::1111", 5353)),
        ("2606:4700:4700:0::1111", ("2606:4700:4700::1111", 53)),
        ("::ffff:1.1.1.1", (str(IPv6Address("::ffff:1.1.1.1")), 53)),
        ("fe80::1%eth0", ("fe80::1%eth0", 53)),
        ("[fe80::1%eth0]:53", ("fe80::1%eth0", 53)),
    ],
)
def test_a_dns_server_is_an_address_with_or_without_port(text: str, server: tuple[str, int]) -> None:
    assert parse_server(text) == server
    assert Options.of({"dns": [text]}).dns == (text,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x:53",
        "dns.example",
        ":53",
        "1.1.1",
        "1.1.1.1.1",
        "01.1.1.1",
        "1.1.1.1:",
        "1.1.1.1:0",
        "1.1.1.1:65536",
        "1.1.1.1:x",
        "1.1.1.1:-1",
        "1.1.1.1:+53",
        "1.1.1.1: 53",
        "1.1.1.1:5_3",
        "1.1.1.1:\u0665\u0663",
        "1.1.1.1:53:53",
        " 1.1.1.1",
        "1.1.1.1\n",
        "[1.1.1.1]:53",
        "[::1",
        "::1]",
        "[::1]53",
        "[::1]:",
        "[::1]:0",
        "[::1]x",
        "[]:53",
        "[x]",
        "[[::1]]",
        "https://1.1.1.1",
    ],
)
def test_other_texts_are_not_dns_servers(text: str) -> None:
    error = refusal(dns=[text])
    assert error.place == "dns"
    assert error.message == f"{text!r} is not an IP address with an optional port"


SPELT = st.lists(st.sampled_from(["1.1.1.1", "::1", "[", "]", ":", "53", "x", "%", "\n", " "]), max_size=6)


@given(st.one_of(st.text(max_size=30), SPELT.map("".join)))
def test_any_text_is_a_dns_server_or_refused(text: str) -> None:
    try:
        host, port = parse_server(text)
    except OptionError:
        return
    assert 0 < port < 65536
    assert parse_server(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") == (host, port)


# --- Fixed addresses ---


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("a.example:80:127.0.0.1", (("a.example", 80), "127.0.0.1")),
        ("A.Example.:443:127.0.0.1", (("a.example", 443), "127.0.0.1")),
        ("xn--mnchen-3ya.example:80:127.0.0.1", (("xn--mnchen-3ya.example", 80), "127.0.0.1")),
        ("a:65535:::1", (("a", 65535), "::1")),
        ("a:1:[2001:db8:0::1]", (("a", 1), "2001:db8::1")),
    ],
)
def test_a_host_and_port_may_have_a_fixed_address(text: str, entry: tuple[tuple[str, int], str]) -> None:
    assert parse_resolve(text) == entry
    assert Options.of({"resolve": [text]}).resolve == (text,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a:80",
        "a:80:",
        ":80:127.0.0.1",
        "a::127.0.0.1",
        "a:0:127.0.0.1",
        "a:65536:127.0.0.1",
        "a:x:127.0.0.1",
        "a:\u0668\u0660:127.0.0.1",
        "a:80:b.example",
        "a:80:127.1",
        "a:80:[127.0.0.1]",
        "a:80:[127.0.0.1",
        "a:80:127.0.0.1]",
        "a:80:[::1",
        "a b:80:127.0.0.1",
        "m\u00fcnchen.example:80:127.0.0.1",  # no target has such a host: it is xn--...
    ],
)
def test_other_texts_are_not_fixed_addresses(text: str) -> None:
    error = refusal(resolve=[text])
    assert error.place == "resolve"
    assert error.message == f"{text!r} is not of the form HOST:PORT:ADDRESS"
