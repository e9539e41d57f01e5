"""Results as a table on a terminal."""

import pytest
from hypothesis import given

from crawler.core.results import Hop, ProbeResult, Timings
from crawler.formats.table import STYLES
from tests.support.results import OUTCOMES, TEXT, a_result, written


def lines(*results: ProbeResult) -> list[str]:
    """The lines of the table without its head."""
    return written("table", *results).splitlines()[1:]


def test_every_outcome_has_its_style() -> None:
    assert STYLES.keys() == set(OUTCOMES)


def test_a_table_has_a_head_and_a_line_a_result() -> None:
    head, first, second = written(
        "table", a_result(), a_result(status=None, outcome="failed", error="why")
    ).splitlines()
    assert head.split() == ["outcome", "status", "ms", "url"]
    assert first.split() == ["ok", "200", "0.0", "http://a/"]
    assert second.split() == ["failed", "-", "0.0", "http://a/", "http.failed:", "why"]


def test_a_table_shows_the_final_url_of_redirects() -> None:
    result = a_result()
    result.hops = [Hop(url, "HEAD", 200, None, Timings()) for url in ("http://a/", "http://b/")]
    result.final_url = "http://b/"
    assert lines(result)[0].endswith("http://a/  -> http://b/")


def test_long_lines_are_not_cut() -> None:
    url = "http://a/" + "b" * 1000
    assert lines(a_result(url)) == [f"ok            200       0.0  {url}"]


def test_nothing_in_a_result_is_markup() -> None:
    url = "http://a/[red]b[/red] :smile: [link=http://evil/]"
    assert url in written("table", a_result(url))


@given(TEXT)
def test_no_text_controls_the_terminal(text: str) -> None:
    table = written("table", a_result(text, error=text, outcome="failed"))
    assert table.count("\n") == 2
    assert table.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x9b31m",  # CSI in one character
        "\r\x1b[2K",
        "\u202egnp.exe",  # right to left
        "\u2028",
    ],
    ids=ascii,
)
def test_control_characters_are_shown_as_replacements(text: str) -> None:
    [line] = lines(a_result(f"http://a/{text}"))
    assert "http://a/\N{REPLACEMENT CHARACTER}" in line
    assert line.isprintable()
