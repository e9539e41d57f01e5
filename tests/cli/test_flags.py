"""Records of options as flags and environment variables of a command."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
import typer
from msgspec.inspect import BoolType, DictType, FloatType, IntType, LiteralType, StrType, UnionType, VarTupleType

from crawler.cli.flags import Flag, flags_of, with_flags
from crawler.core.options import CheckedOptions, Options
from crawler.core.service_options import ServiceOptions

RECORDS: list[type[CheckedOptions]] = [Options, ServiceOptions]
FLAGS = [(record, flag) for record in RECORDS for flag in flags_of(record)]
BY_NAME = {flag.field: flag for _, flag in FLAGS}

Given = tuple[ServiceOptions, Options]


def run(*arguments: str) -> Given:
    """What a command with all flags is given when it is called so."""
    given: list[Given] = []
    app = typer.Typer(add_completion=False)

    @app.command()
    @with_flags(service=ServiceOptions, options=Options)
    def command(service: ServiceOptions, options: Options) -> None:
        given.append((service, options))

    app(args=list(arguments), standalone_mode=False)
    [one] = given
    return one


def refusal(*arguments: str) -> str:
    with pytest.raises(Exception) as caught:  # typer's own click has no public name
        run(*arguments)
    assert type(caught.value).__name__ == "BadParameter"
    return str(caught.value.format_message())  # type: ignore[attr-defined]


RENAMED = {"workers": "processes"}
"""Old names of options, and the fields that have their values."""


def value_of(given: Given, field: str) -> Any:
    service, options = given
    field = RENAMED.get(field, field)
    return msgspec.structs.asdict(service if field in ServiceOptions.__struct_fields__ else options)[field]


# Of every option, how it may be given and what comes of it. One that is not here has a value made for its type.
EXAMPLES: dict[str, tuple[list[str], Any]] = {
    "headers": (["X-One: 1", "X-Two:a: b"], {"X-One": "1", "X-Two": "a: b"}),
    "dns": (["1.1.1.1", "[::1]:5353"], ("1.1.1.1", "[::1]:5353")),
    "resolve": (["a.example:80:127.0.0.1", "b.example:80:::1"], ("a.example:80:127.0.0.1", "b.example:80:::1")),
    "allow": (["10.0.0.0/8", "fd00::/8"], ("10.0.0.0/8", "fd00::/8")),
    "registry": (["sqlite:///a b.db"], "sqlite:///a b.db"),
    "webhook_secret": (["whsec_" + 32 * "a"], "whsec_" + 32 * "a"),
    "forwarded_allow": (["10.0.0.0/8", "::1/128"], ("10.0.0.0/8", "::1/128")),
    "root_path": (["/crawler"], "/crawler"),
    "tokens": (["s3cret", "ops:read:s3cret-too"], ("s3cret", "ops:read:s3cret-too")),
    "cors_origins": (["https://a.example", "http://[::1]:3000"], ("https://a.example", "http://[::1]:3000")),
    "accept": (["200-299", "404"], ("200-299", "404")),
    "match": (["a+ b"], "a+ b"),
    "proxy": (["http://127.0.0.1:8080"], "http://127.0.0.1:8080"),
    "port": (["8080"], 8080),
    "processes": (["3"], 3),
    "workers": (["3"], 3),
}
# The variables that an option needs beside its own.
NEEDED: dict[str, dict[str, str]] = {"key": {"CRAWLER_CERT": "client.pem"}, "cors_origins": {"CRAWLER_TOKEN": "s3cret"}}
BY_TYPE: dict[type, tuple[list[str], Any]] = {
    IntType: (["3"], 3),
    FloatType: (["2.5"], 2.5),
    BoolType: (["1"], True),
    StrType: (["some text"], "some text"),
    UnionType: (["some file"], "some file"),
}


def example(flag: Flag) -> tuple[list[str], Any]:
    if flag.field in EXAMPLES:
        return EXAMPLES[flag.field]
    if isinstance(flag.type, LiteralType):
        other = next(str(value) for value in flag.type.values if value != flag.default)
        return [other], other
    if type(flag.type) not in BY_TYPE:
        pytest.skip(f"no example of {flag.field} stands here yet")
    return BY_TYPE[type(flag.type)]


def spelt(flag: Flag, name: str) -> list[str]:
    """The example on the command line."""
    texts, _ = example(flag)
    return [name] if isinstance(flag.type, BoolType) else [part for text in texts for part in (name, text)]


@pytest.mark.parametrize("flag", [flag for _, flag in FLAGS], ids=lambda flag: flag.field)
def test_an_option_is_the_same_by_any_of_its_names_and_by_the_environment(
    flag: Flag, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, expected = example(flag)
    for name, value in NEEDED.get(flag.field, {}).items():
        monkeypatch.setenv(name, value)
    assert value_of(run(), flag.field) != expected
    for name in flag.names:
        assert value_of(run(*spelt(flag, name)), flag.field) == expected
    by_flag = run(*spelt(flag, flag.names[0]))
    monkeypatch.setenv(flag.variable.name, "\n".join(texts))
    assert run() == by_flag


@pytest.mark.parametrize("flag", [flag for _, flag in FLAGS], ids=lambda flag: flag.field)
def test_an_empty_variable_is_none(flag: Flag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(flag.variable.name, "")
    assert run() == (ServiceOptions(), Options())


def test_a_second_variable_has_several_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [flag.field for _, flag in FLAGS if flag.variable.list_name] == ["tokens"]
    monkeypatch.setenv("CRAWLER_TOKENS", "one, two\tread:three,,\nann:read:four ")
    assert run()[0].tokens == ("one", "two", "read:three", "ann:read:four")
    monkeypatch.setenv("CRAWLER_TOKEN", "zero\ntwo")
    assert run()[0].tokens == ("zero", "two", "one", "read:three", "ann:read:four")
    assert run("--token", "five")[0].tokens == ("five",)


def test_without_flags_the_records_defaults_stand() -> None:
    assert run() == (ServiceOptions(), Options())


def test_a_number_or_a_word_is_either() -> None:
    assert value_of(run("--processes", "auto"), "processes") == "auto"


def test_two_names_of_an_option_may_not_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--processes", "3", "--workers", "3")[1].processes == 3
    assert refusal("--processes", "2", "--workers", "3") == (
        "Invalid value for --workers: is the old name of processes; set only one of the two"
    )
    monkeypatch.setenv("CRAWLER_WORKERS", "auto")
    assert refusal("--processes", "2").startswith("Invalid value for --workers: ")


def test_a_flag_overrules_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWLER_RETRIES", "5")
    monkeypatch.setenv("CRAWLER_DNS", "1.1.1.1\n1.0.0.1")
    _, options = run("--retries", "2", "--dns", "9.9.9.9")
    assert (options.retries, options.dns) == (2, ("9.9.9.9",))


@pytest.mark.parametrize(("text", "expected"), [("1", True), ("true", True), ("0", False), ("false", False)])
def test_a_variable_switches_on_or_off(text: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWLER_INSECURE", text)
    assert run()[1].insecure is expected


def test_names_are_made_from_the_fields() -> None:
    assert BY_NAME["connect_timeout"].names == ("--connect-timeout",)
    assert BY_NAME["connect_timeout"].variable.name == "CRAWLER_CONNECT_TIMEOUT"
    assert BY_NAME["headers"].names == ("--header", "-H")
    assert BY_NAME["headers"].variable.name == "CRAWLER_HEADER"
    assert BY_NAME["ipv4"].names == ("--ipv4", "-4")


def test_no_two_options_share_a_name() -> None:
    names = [name for _, flag in FLAGS for name in (*flag.names, flag.variable.name)]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_has_a_flag_with_help(record: type[CheckedOptions]) -> None:
    flags = flags_of(record)
    assert [flag.field for flag in flags] == list(record.__struct_fields__)
    assert all(flag.help for flag in flags)
    assert {flag.field for flag in flags if isinstance(flag.type, BoolType)} == {
        flag.field for flag in flags if not flag.metavar
    }


@pytest.mark.parametrize("flag", [flag for _, flag in FLAGS], ids=lambda flag: flag.field)
def test_a_flags_default_is_the_records(flag: Flag) -> None:
    default = None if flag.field in RENAMED else value_of((ServiceOptions(), Options()), flag.field)
    assert flag.default == (() if isinstance(flag.type, DictType | VarTupleType) else default)


BAD: Mapping[type, list[str]] = {
    IntType: ["-1", "x", "1.5", "", "1e3"],
    FloatType: ["-1", "x", "nan", "inf", ""],
    LiteralType: ["PUT", ""],
    DictType: ["no colon", "Host: x", ": x", "A\nB: c", "A: \u0100"],
    VarTupleType: ["x", "", "1.1.1.1:0"],
}
CHECKED = [flag for _, flag in FLAGS if flag.field not in ("allow", "forwarded_allow", "tokens")]
"""The flags of which a bad value is seen at once. tests/cli/test_main.py tries networks for the guard;
tests/server/test_auth.py tries tokens, and the networks of proxies."""


@pytest.mark.parametrize(
    ("flag", "text"),
    [(flag, text) for flag in CHECKED for text in BAD.get(type(flag.type), [])],
    ids=lambda value: value.field if isinstance(value, Flag) else ascii(value),
)
def test_a_bad_value_is_refused_by_the_name_of_its_flag(flag: Flag, text: str) -> None:
    for name in flag.names[:1]:
        assert name in refusal(f"{name}={text}")


@pytest.mark.parametrize(
    ("flag", "text"),
    [(flag, BAD[type(flag.type)][0]) for flag in CHECKED if type(flag.type) in BAD],
    ids=lambda value: value.field if isinstance(value, Flag) else ascii(value),
)
def test_a_bad_variable_is_refused_by_the_name_of_its_flag(
    flag: Flag, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(flag.variable.name, text)
    assert flag.names[0] in refusal()


def test_options_that_exclude_each_other_are_refused_by_name() -> None:
    message = refusal("-4", "-6")
    assert "--ipv4" in message
    assert "ipv6" in message


def test_a_user_agent_is_not_taken_for_a_header() -> None:
    assert "--user-agent" in refusal("--user-agent", "a\nb")


def test_a_field_without_description_is_a_bug() -> None:
    class Bare(CheckedOptions, frozen=True, kw_only=True):
        nothing: int = 0

    with pytest.raises(AssertionError, match="nothing has no description"):
        flags_of(Bare)


def test_a_command_keeps_its_own_arguments() -> None:
    given: list[tuple[str, ServiceOptions]] = []

    def command(service: ServiceOptions, name: str = "x") -> None:
        given.append((name, service))

    app = typer.Typer(add_completion=False)
    wrapped: Callable[..., Any] = with_flags(service=ServiceOptions)(command)
    app.command()(wrapped)
    app(args=["--name", "y", "--port", "80"], standalone_mode=False)
    assert given == [("y", ServiceOptions(port=80))]
