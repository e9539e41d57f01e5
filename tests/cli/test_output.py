"""What `probe` writes: to files, which it never destroys, and to terminals of every kind."""

import asyncio
import csv
import json
import os
import re
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import DEADLINE, Ended, Terminal, end_of, environment, run_crawler, screen, started, until
from tests.support.exchange import Exchange
from tests.support.site import Site


async def probing(*arguments: str, **more: Any) -> Ended:
    return await run_crawler("probe", "--retries=0", *arguments, **more)


async def list_of(path: Path, *urls: str) -> Path:
    await asyncio.to_thread(path.write_text, "".join(f"{url}\n" for url in urls))
    return path


async def text_of(path: Path) -> str:
    return await asyncio.to_thread(path.read_text)


# --- Files ---


async def test_old_results_stay_until_the_new_ones_are_complete(site: Site, tmp_path: Path) -> None:
    file = await list_of(tmp_path / "results.ndjson", "old")
    async with started("probe", site.url("/ok"), site.url("/hang"), "-o", str(file)) as process:
        await site.until(lambda: site.active == 1 and len(site.requests) == 2)
        assert await text_of(file) == "old\n"
        process.kill()
        await end_of(process)
    assert await text_of(file) == "old\n"


@pytest.mark.parametrize("arguments", [["-f", "/nonexistent"], ["-f", "/"], ["x", "--cafile=/nonexistent"]])
async def test_a_run_that_cannot_begin_touches_no_file(arguments: list[str], tmp_path: Path) -> None:
    file = await list_of(tmp_path / "results", "old")
    ended = await probing(*arguments, "-o", str(file))
    assert ended.code == 2
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["results"]
    assert await text_of(file) == "old\n"


@pytest.mark.parametrize("flags", [["-o"], ["--append", "-o"], ["--resume"]], ids=" ".join)
async def test_the_list_is_never_written_over(flags: list[str], site: Site, tmp_path: Path) -> None:
    urls = await list_of(tmp_path / "urls", site.url("/ok"))
    link = tmp_path / "link"
    link.symlink_to(urls)
    for output in (urls, link, Path(f"{tmp_path}/../{tmp_path.name}/urls")):
        ended = await probing("-f", str(urls), *flags, str(output))
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == f"crawler: --output: {output} is the list to read; name another file\n"
    assert await text_of(urls) == site.url("/ok") + "\n"


async def test_a_link_stays_a_link_and_a_file_keeps_its_mode(site: Site, tmp_path: Path) -> None:
    file, link = await list_of(tmp_path / "results", "old"), tmp_path / "link"
    file.chmod(0o640)
    link.symlink_to(file)
    assert (await probing(site.url("/ok"), "-o", str(link))).code == 0
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert json.loads(await text_of(file))["outcome"] == "ok"


async def test_a_device_is_written_to(site: Site) -> None:
    assert (await probing("-q", site.url("/ok"), "-o", "/dev/null")) == Ended(0, "", "")
    reading, writing = os.pipe()
    assert (await probing("-q", site.url("/ok"), "-o", "/dev/stdout", stdout=writing)).code == 0
    os.close(writing)
    assert json.loads(await asyncio.to_thread(os.read, reading, 65536))["outcome"] == "ok"
    os.close(reading)


async def test_the_format_comes_from_the_name_and_a_dash_is_standard_output(site: Site, tmp_path: Path) -> None:
    table = tmp_path / "results.CSV"
    to_file, to_output = await asyncio.gather(
        probing(site.url("/ok"), "-o", str(table)), probing(site.url("/ok"), "-o", "-")
    )
    assert (to_file.code, to_file.out) == (0, "")
    assert (await text_of(table)).startswith("seq,url,outcome,")
    assert to_output.outcomes == ["ok"]


@pytest.mark.parametrize("name", ["results.ndjson", "results.csv"])
async def test_results_can_be_added_to_a_file(name: str, site: Site, tmp_path: Path) -> None:
    file = tmp_path / name
    for path in ("/ok?1", "/ok?2"):
        assert (await probing(site.url(path), "--append", "-o", str(file))).code == 0
    text = await text_of(file)
    assert len(text.splitlines()) == 2 + (name == "results.csv")
    assert text.count("seq,url,") == (name == "results.csv")


async def test_a_last_line_without_its_end_is_not_joined_to_a_result(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "results"
    await asyncio.to_thread(file.write_text, '{"mine": 1}')
    await probing(site.url("/ok"), "--append", "-o", str(file))
    assert [json.loads(line).get("mine") for line in (await text_of(file)).splitlines()] == [1, None]


async def test_results_in_a_file_can_be_read_within_about_a_second(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "results.part"
    async with started("probe", site.url("/ok"), site.url("/hang"), "-o", str(tmp_path / "results")) as process:
        await until(lambda: file.exists() and file.read_text() != "")
        assert json.loads(await text_of(file))["url"] == site.url("/ok")
        process.kill()


# --- Runs that were stopped ---


@pytest.mark.parametrize("name", ["results.ndjson", "results.csv"])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
async def test_a_run_that_was_stopped_goes_on_where_it_was(
    stop: signal.Signals, name: str, site: Site, tmp_path: Path
) -> None:
    file = tmp_path / name
    # The first host's last URL hangs; the lines behind it are done meanwhile.
    urls = [site.url(f"/ok?{number}") for number in range(10)]
    lines = [*urls[:4], site.url("/later"), "bad", *urls[4:], urls[0]]
    asked = await list_of(tmp_path / "urls", *lines)
    partial, is_csv = tmp_path / f"{name}.part", name.endswith("csv")
    hang = asyncio.Event()

    async def answer_later(exchange: Exchange) -> None:
        await hang.wait()

    site.on("/later", answer_later)
    async with started("probe", "--method=GET", "-f", str(asked), "-o", str(file)) as process:
        await until(lambda: partial.exists() and partial.read_text().count("\n") >= len(lines) - 1 + is_csv)
        process.send_signal(stop)
        ended = await end_of(process)
    hang.set()
    assert ended.code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}.get(stop, -9)
    assert not file.exists()
    site.on("/later", lambda exchange: exchange.reply())
    before = len(site.requests)
    ended = await probing("--method=GET", "-f", str(asked), "--resume", str(file))
    assert ended.code == 1  # bad, of the first run
    assert [request.path for request in site.requests[before:]] == ["/later"]
    assert not partial.exists()
    text = await text_of(file)
    records = list(csv.DictReader(text.splitlines())) if is_csv else map(json.loads, text.splitlines())
    assert sorted((int(record["seq"]), record["url"]) for record in records) == list(enumerate(lines))


async def test_results_of_another_list_are_not_completed(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "results"
    await probing("-f", str(await list_of(tmp_path / "one", site.url("/ok"), "bad")), "-o", str(file))
    before = await text_of(file)
    ended = await probing("-f", str(await list_of(tmp_path / "two", site.url("/ok"), "other")), "--resume", str(file))
    assert (ended.code, ended.err) == (
        2,
        "crawler: --resume: has the results of another list: its URL 2 is not 'other'\n",
    )
    assert await text_of(file) == before


@pytest.mark.parametrize("content", ["not a result\n", '{"seq": 0}\n', "seq,url\n1,x\n"])
async def test_a_file_of_something_else_is_not_completed(content: str, tmp_path: Path) -> None:
    for name in ("results.ndjson", "results.csv"):
        file = tmp_path / name
        await asyncio.to_thread(file.write_text, content)
        ended = await probing("x", "--resume", str(file))
        assert ended.code == 2
        assert re.match(rf"crawler: {file}: line \d is not a result in (NDJSON|CSV)\n", ended.err)
        assert await text_of(file) == content


async def test_a_cut_result_is_made_again(site: Site, tmp_path: Path) -> None:
    file, urls = tmp_path / "results", [site.url("/ok?1"), site.url("/ok?2")]
    await probing(*urls, "-o", str(file))
    lines = (await text_of(file)).splitlines(keepends=True)
    await asyncio.to_thread(file.write_text, lines[0] + lines[1][:40])
    ended = await probing(*urls, "--resume", str(file))
    assert ended.code == 0
    assert sorted(json.loads(line)["seq"] for line in (await text_of(file)).splitlines()) == [0, 1]


async def test_a_run_that_was_stopped_is_not_overwritten_by_a_new_one(site: Site, tmp_path: Path) -> None:
    partial = await list_of(tmp_path / "results.part", "{}")
    ended = await probing(site.url("/ok"), "-o", str(tmp_path / "results"))
    assert ended.code == 2
    assert "go on with --resume" in ended.err
    assert await text_of(partial) == "{}\n"


@pytest.mark.parametrize("other", [["-o", "y"], ["--append"], ["--only", "bad"], ["--format", "table"]], ids=" ".join)
async def test_options_that_contradict_resume_are_refused(other: list[str], tmp_path: Path) -> None:
    ended = await probing("x", "--resume", str(tmp_path / "results"), *other)
    assert (ended.code, ended.out) == (2, "")
    assert "--append" in ended.err or "--resume" in ended.err


async def test_a_hangup_that_is_ignored_ends_nothing(site: Site) -> None:
    """As under nohup(1)."""
    script = "import os,signal,sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", script, sys.executable, "-m", "crawler", "probe", "-q", site.url("/wait")]
    go = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await go.wait()
        await exchange.reply()

    site.on("/wait", answer)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment())
    await site.until(lambda: len(site.requests) == 1)
    process.send_signal(signal.SIGHUP)
    go.set()
    async with asyncio.timeout(DEADLINE):
        assert (await end_of(process)).outcomes == ["ok"]


# --- Which results, and their sum ---


async def test_only_some_results_are_written(site: Site) -> None:
    urls = [site.url("/ok"), site.url("/status/404"), site.url("/reset"), "bad"]
    for kinds, outcomes in {
        "bad": ["http_error", "failed", "invalid"],
        "ok": ["ok"],
        "http_error": ["http_error"],
        "tcp.reset url.invalid": ["failed", "invalid"],
    }.items():
        ended = await probing(*urls, *(f"--only={kind}" for kind in kinds.split()))
        assert ended.outcomes == outcomes
        assert ended.code == 1  # it tells of all URLs
        assert "crawler: 4 URLs in " in ended.err
    ended = await probing("x", "--only=dead")
    assert (ended.code, ended.out) == (2, "")
    assert "'dead' is none of bad, ok, http_error, failed, blocked, invalid" in ended.err


async def test_a_run_ends_with_its_sum(site: Site) -> None:
    ended = await probing(site.url("/ok"), site.url("/status/404"), site.url("/slow?s=0.1"))
    host = re.escape(site.url("/").split("/")[2])
    assert re.fullmatch(
        rf"crawler: 3 URLs in \d+\.\d s \(\d+/s\): \d ok, \d http error; slowest host: {host}, \d\.\d\d s\n", ended.err
    )
    assert (await probing("-q", site.url("/ok"))).err == ""
    assert (await probing("-f", "-")).err.startswith("crawler: 0 URLs in ")


async def test_titles_and_matches_are_seen(site: Site) -> None:
    page = b"<title>A page\x1b</title>"
    site.on("/page", lambda exchange: exchange.reply(headers=[("Content-Type", "text/html")], body=page))
    for format_ in ("table", "csv"):
        ended = await probing("--title", "--match=nothing", f"--format={format_}", site.url("/page"))
        assert "A page" in ended.out
        assert ("not matched" if format_ == "table" else ",False") in ended.out
        assert format_ == "csv" or "\x1b" not in ended.out


# --- Terminals ---


def rows_of(lines: list[str]) -> list[str]:
    """The results in the lines of a screen, without what was wrapped."""
    return [line for line in lines if re.match(r"(ok|http_error|failed|invalid) +(\d{3}|-) ", line)]


@pytest.mark.parametrize("columns", [40, 80, 200])
async def test_every_row_is_seen_at_every_width(columns: int, site: Site, tmp_path: Path) -> None:
    kinds = ["/ok?", "/status/404?", "/reset?"]
    urls = await list_of(tmp_path / "urls", *(site.url(f"{kinds[number % 3]}{number}") for number in range(300)))
    terminal = Terminal(columns)
    streams: dict[str, Any] = {"stdout": terminal.slave, "stderr": terminal.slave}
    async with started("probe", "--retries=0", "-f", str(urls), env={"COLUMNS": str(columns)}, **streams) as process:
        reading = asyncio.ensure_future(asyncio.to_thread(terminal.read))
        assert await process.wait() == 1
    lines = screen(await reading, columns)
    assert len(rows_of(lines)) == 300
    [bar] = [place for place, line in enumerate(lines) if "300/300 " in line]
    assert lines[bar + 1].startswith("crawler: 300 URLs in ")  # the bar has one line


async def test_rows_are_seen_when_the_window_changes(site: Site, tmp_path: Path) -> None:
    urls = await list_of(tmp_path / "urls", *(site.url(f"/ok?{number}") for number in range(200)))
    terminal = Terminal(120)
    environment_ = {key: value for key, value in environment().items() if key != "COLUMNS"}
    command = [sys.executable, "-m", "crawler", "probe", "-f", str(urls)]
    streams: dict[str, Any] = {"stdout": terminal.slave, "stderr": terminal.slave, "stdin": asyncio.subprocess.DEVNULL}
    process = await asyncio.create_subprocess_exec(*command, env=environment_, **streams)
    for columns in (60, 100, 44):
        await asyncio.to_thread(terminal.read_some)
        terminal.resize(columns)
    reading = asyncio.ensure_future(asyncio.to_thread(terminal.read))
    assert await asyncio.wait_for(process.wait(), DEADLINE) == 0
    written = await reading
    shown = "".join(screen(written, 44))
    assert {int(number) for number in re.findall(r"/ok\?(\d+)", shown)} >= set(range(200))
    assert "200/200" in shown


async def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(site: Site) -> None:
    terminal = Terminal()
    env = {"TERM": "dumb"}
    await probing(site.url("/ok"), "bad", env=env, stdout=terminal.slave, stderr=terminal.slave)
    written = await asyncio.to_thread(terminal.read)
    assert "\x1b" not in written
    assert len(rows_of(written.splitlines())) == 2


async def test_a_terminal_of_another_encoding_is_written_to(site: Site) -> None:
    terminal = Terminal()
    env = {"PYTHONIOENCODING": "latin-1"}
    url = "\N{LATIN SMALL LETTER U WITH DIAERESIS}\N{EURO SIGN}"
    ended = await probing(url, env=env, stdout=terminal.slave, stderr=terminal.slave)
    assert ended.code == 1
    written = await asyncio.to_thread(terminal.read)
    assert "Traceback" not in written
    [row] = rows_of(screen(written))
    assert "\\u20ac" in row


@pytest.mark.parametrize(
    ("arguments", "env", "is_colored"),
    [
        ([], {}, True),
        ([], {"NO_COLOR": "1"}, False),
        (["--color=never"], {}, False),
        (["--color=always"], {"NO_COLOR": "1"}, True),
    ],
)
async def test_colours_are_the_users_choice(
    arguments: list[str], env: dict[str, str], is_colored: bool, site: Site
) -> None:
    terminal = Terminal()
    await probing(*arguments, "--no-progress", site.url("/ok"), env=env, stdout=terminal.slave)
    assert ("\x1b[32m" in await asyncio.to_thread(terminal.read)) is is_colored
    piped = await probing(*arguments, "--format=table", site.url("/ok"), env=env)
    assert ("\x1b[32m" in piped.out) is ("--color=always" in arguments)


async def test_no_bar_is_shown_if_none_is_wanted(site: Site) -> None:
    for flag, last in (("--no-progress", "crawler: 2 URLs in "), ("--quiet", "")):
        terminal = Terminal()
        await probing(flag, site.url("/ok"), "bad", stdout=terminal.slave, stderr=terminal.slave)
        lines = screen(await asyncio.to_thread(terminal.read))
        assert len(rows_of(lines)) == 2
        assert not any("2/2" in line for line in lines)
        assert lines[-2].startswith(last)


@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_a_terminal_that_is_not_read_loses_no_row(unbuffered: str, site: Site, tmp_path: Path) -> None:
    """A write that waits for the terminal is cut short by a signal, here by those of Ctrl-Z and fg."""
    urls = await list_of(tmp_path / "urls", *(site.url(f"/ok?{number}&{'x' * 200}") for number in range(300)))
    terminal = Terminal()
    streams: dict[str, Any] = {"stdout": terminal.slave, "stderr": terminal.slave}
    env = {"PYTHONUNBUFFERED": unbuffered}
    async with started("probe", "-f", str(urls), env=env, **streams) as process:
        await site.until(lambda: len(site.requests) == 300)
        for _ in range(10):  # the terminal is full by now, or soon will be
            await asyncio.sleep(0.05)
            process.send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGCONT)
        reading = asyncio.ensure_future(asyncio.to_thread(terminal.read))
        assert await process.wait() == 0
    assert len(rows_of(screen(await reading))) == 300
