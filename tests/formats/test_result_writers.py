"""Results as text."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.core.results import ProbeResult
from crawler.formats.result_writers import COLUMNS, RESULT_FORMATS, ResultFormat, open_writer
from tests.support.results import OUTCOMES, RESULT_KEYS, TEXT, a_result, written


def rows(*results: ProbeResult) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(written("csv", *results), newline="")))


# --- NDJSON ---


def test_ndjson_is_one_object_a_line_with_every_key() -> None:
    text = written("ndjson", a_result(), a_result("http://b/", seq=1))
    assert text.endswith("}\n")
    assert [json.loads(line)["url"] for line in text.splitlines()] == ["http://a/", "http://b/"]
    for line in text.splitlines():
        assert list(json.loads(line))[: len(RESULT_KEYS)] == RESULT_KEYS


@given(TEXT)
def test_any_text_is_one_line_of_ndjson(text: str) -> None:
    line, end = written("ndjson", a_result(text, error=text)).split("\n")
    assert end == ""
    assert "\r" not in line
    assert json.loads(line)["url"] == text
    assert json.loads(line)["error"]["message"] == text


# --- CSV ---


def test_csv_begins_with_its_columns_even_without_results() -> None:
    assert written("csv") == ",".join(COLUMNS) + "\r\n"
    assert list(COLUMNS) == [
        "seq", "url", "outcome", "status", "error", "message", "method", "attempts", "final_url", "ip", "total_ms",
        "timestamp", "title", "matched",
    ]  # fmt: skip


def test_csv_has_empty_cells_for_unknown_values() -> None:
    [row] = rows(a_result(status=None))
    assert (row["status"], row["error"], row["message"], row["ip"]) == ("", "", "", "")
    [row] = rows(a_result(error="it failed", outcome="failed"))
    assert (row["outcome"], row["error"], row["message"]) == ("failed", "http.failed", "it failed")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_is_a_formula_for_a_spreadsheet(start: str) -> None:
    text = f'{start}HYPERLINK("http://evil/","x")'
    [row] = rows(a_result(text, error=text))
    assert (row["url"], row["message"]) == ("'" + text, "'" + text)


def test_numbers_are_no_formulas() -> None:
    [row] = rows(a_result(seq=-1))
    assert row["seq"] == "-1"


@given(st.lists(TEXT))
def test_any_text_is_one_cell_of_csv(texts: list[str]) -> None:
    found = rows(*[a_result(text) for text in texts])
    assert [row["url"].removeprefix("'") for row in found] == [text.removeprefix("'") for text in texts]
    assert not any(row["url"].startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for row in found)
    assert all(row.keys() == COLUMNS.keys() for row in found)


# --- All ---


def test_every_format_writes_every_outcome() -> None:
    for format_ in RESULT_FORMATS:
        for outcome in OUTCOMES:
            assert outcome in written(format_, a_result(outcome=outcome))


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("format_", RESULT_FORMATS)
def test_a_result_is_written_whole(format_: ResultFormat, is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(io.StringIO):
        """Remembers each write."""

        def write(self, text: str) -> int:
            writes.append(text)
            return super().write(text)

        def isatty(self) -> bool:
            return is_terminal

    monkeypatch.setenv("TERM", "xterm")
    writes: list[str] = []
    writer = open_writer(format_, Stream(newline=""))
    writes.clear()
    writer.write(a_result())
    assert len(writes) == 1
    assert writes[0].endswith("\n")
