"""The command, as a process of its own where pipes, terminals and signals matter."""

import asyncio
import csv
import gzip
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from crawler.cli.flags import flags_of
from crawler.cli.main import main
from crawler.core.options import VERSION, CheckedOptions, Options
from crawler.core.service_options import ServiceOptions
from tests.support.certs import Authority
from tests.support.commands import DEADLINE, Ended, Terminal, end_of, environment, run_crawler, screen, started
from tests.support.dns_server import DnsServer
from tests.support.exchange import Exchange
from tests.support.results import RESULT_KEYS
from tests.support.site import Site

CLOSED_PORT = "http://127.0.0.1:1/"


# --- Helpers ---


async def probing(*arguments: str | bytes, **more: Any) -> Ended:
    """Probe to the end, without retries and without a summary."""
    return await run_crawler("probe", "--retries=0", "--quiet", *arguments, **more)


@contextmanager
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


# --- Results in a pipe ---


async def test_a_pipe_gets_one_json_object_a_line_and_nothing_else(site: Site) -> None:
    ended = await probing(site.url("/ok"), site.url("/status/404"), site.url("/reset"), "not a url")
    assert (ended.code, ended.err) == (1, "")
    assert ended.outcomes == ["ok", "http_error", "failed", "invalid"]
    for record in ended.records:
        assert list(record)[: len(RESULT_KEYS)] == RESULT_KEYS
    assert {record["url"] for record in ended.records} >= {site.url("/ok"), "not a url"}


async def test_csv_is_read_by_any_reader_of_csv(site: Site) -> None:
    ended = await probing("--format=csv", "--", site.url("/ok"), '=1+1,"x"')
    assert (ended.code, ended.err) == (1, "")
    head, first, *_ = ended.out.split("\r\n")
    assert head.startswith("seq,url,outcome,status,error,")
    rows = {row["seq"]: row for row in csv.DictReader(io.StringIO(ended.out, newline=""))}
    assert (rows["0"]["url"], rows["0"]["outcome"], rows["0"]["status"]) == (site.url("/ok"), "ok", "200")
    assert rows["1"]["url"] == '\'=1+1,"x"'
    assert "\n" not in first


async def test_the_exit_code_says_whether_all_are_ok(site: Site) -> None:
    good, bad = await asyncio.gather(
        probing(site.url("/ok"), site.url("/redirect/1")), probing(site.url("/ok"), site.url("/status/404"))
    )
    assert (good.code, bad.code) == (0, 1)


async def test_a_url_that_is_not_utf_8_is_a_record(site: Site) -> None:
    [record] = (await probing(b"http://a/\xff", "--format=ndjson")).records
    assert (record["outcome"], record["url"]) == ("invalid", "http://a/\ufffd")


async def test_a_reader_who_leaves_ends_the_command_quietly(site: Site) -> None:
    left = asyncio.Event()

    async def answer_once_the_reader_has_left(exchange: Exchange) -> None:
        await left.wait()
        await exchange.reply()

    site.on("/late", answer_once_the_reader_has_left)
    reading, writing = os.pipe()
    async with started("probe", "-q", site.url("/ok"), site.url("/late"), stdout=writing) as process:
        os.close(writing)
        first = await asyncio.to_thread(os.read, reading, 65536)
        os.close(reading)
        left.set()
        ended = await end_of(process)
    assert json.loads(first)["url"] == site.url("/ok")
    assert (ended.code, ended.err) == (1, "")


async def test_a_full_disk_is_a_clear_error(site: Site) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    ended = await probing(site.url("/ok"), stdout=full)
    os.close(full)
    assert (ended.code, ended.err) == (2, "crawler: standard output: No space left on device\n")


# --- Lists of URLs ---


async def test_urls_come_from_arguments_and_a_file_and_each_line_has_its_record(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "urls"
    urls = [site.url("/ok?1"), site.url("/ok?2"), site.url("/ok?1"), "", " \t", site.url("/ok?3") + "#x", "bad"]
    content = "\ufeff" + "\r\n".join(urls) + "\r\n\r\n"
    await asyncio.to_thread(file.write_bytes, content.encode())
    ended = await probing(site.url("/ok?3"), "-f", str(file))
    by_place = {record["seq"]: record["url"] for record in ended.records}
    assert by_place == {
        0: site.url("/ok?3"),
        1: site.url("/ok?1"),
        2: site.url("/ok?2"),
        3: site.url("/ok?1"),
        4: site.url("/ok?3") + "#x",
        5: "bad",
    }
    assert ended.outcomes == ["ok"] * 5 + ["invalid"]
    assert sorted(request.path for request in site.requests) == ["/ok?1", "/ok?2", "/ok?3"]


async def test_a_packed_table_is_a_list_too(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "links.csv.gz"
    rows = f'name,Link\r\n"a, b",{site.url("/ok")}\r\nc,\r\nd,{site.url("/status/404")}\r\n'
    await asyncio.to_thread(file.write_bytes, gzip.compress(rows.encode()))
    ended = await probing("-f", str(file), "--column", "link")
    assert (ended.code, ended.err) == (1, "")
    assert ended.outcomes == ["ok", "invalid", "http_error"]


async def test_standard_input_is_what_it_is_said_to_be(site: Site) -> None:
    body = json.dumps({"urls": [site.url("/ok"), "bad"]}).encode()
    told, from_environment = await asyncio.gather(
        probing("-f", "-", "--input=json", stdin=body),
        probing("-f", "-", stdin=b'{"x": "bad"}', env={"CRAWLER_INPUT": "ndjson", "CRAWLER_COLUMN": "x"}),
    )
    assert told.outcomes == ["ok", "invalid"]
    assert from_environment.outcomes == ["invalid"]


async def test_a_list_that_is_broken_is_told_in_one_line(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "urls.ndjson"
    await asyncio.to_thread(file.write_text, f'"{site.url("/ok")}"\n\nhttp://a/\n')
    ended = await probing("-f", str(file))
    message = "is not JSON: invalid character (byte 0)"
    assert (ended.code, ended.err) == (2, f"crawler: {file}: line 3: {message}\n")


async def test_results_come_before_the_input_ends(site: Site) -> None:
    async with started("probe", "-q", "-f", "-", stdin=asyncio.subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for number in range(3):
            url = site.url(f"/ok?{number}")
            process.stdin.write(url.encode() + b"\n")
            assert json.loads(await process.stdout.readline())["url"] == url
        process.stdin.write(site.url("/ok?end").encode())
        process.stdin.close()
        ended = await end_of(process)
    assert [record["url"] for record in ended.records] == [site.url("/ok?end")]
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("how", ["argument", "dash", "pipe"])
async def test_a_list_needs_no_option(how: str, site: Site, tmp_path: Path) -> None:
    file, host = tmp_path / "urls.txt", site.url("/ok").removeprefix("http://")
    content = f"# a list\n{host}\n\nhello\n".encode()
    await asyncio.to_thread(file.write_bytes, content)
    arguments = {"argument": [str(file)], "dash": ["-"], "pipe": []}[how]
    ended = await probing("--scheme=http", *arguments, **({} if how == "argument" else {"stdin": content}))
    assert [(record["url"], record["outcome"]) for record in sorted(ended.records, key=lambda each: each["seq"])] == [
        (host, "ok"), ("hello", "invalid")
    ]  # fmt: skip


async def test_a_bare_host_gets_https(authority: Authority) -> None:
    async with Site(tls=authority.good("localhost")) as site:
        ended = await probing(f"localhost:{site.port}/ok", "--cafile", str(authority.cafile))
    assert ended.outcomes == ["ok"]
    assert ended.records[0]["final_url"] == f"https://localhost:{site.port}/ok"
    assert (await probing("localhost:1", "--scheme=none")).outcomes == ["invalid"]


async def test_a_delimiter_in_a_url_is_no_other_url(site: Site, tmp_path: Path) -> None:
    table = tmp_path / "links.csv"
    await asyncio.to_thread(table.write_text, f"url;title\n{site.url('/ok')};home\n")
    assert [record["url"] for record in (await probing(str(table))).records] == [site.url("/ok")]
    await asyncio.to_thread(table.write_text, f"url\n{site.url('/ok')},2\n")
    ended = await probing(str(table))
    message = "line 2: has 2 cells for 1 column; a cell with ',' in it must be quoted"
    assert (ended.code, ended.err) == (2, f"crawler: {table}: {message}\n")


async def test_a_list_without_urls_is_all_well() -> None:
    assert await probing("-f", "-") == Ended(0, "", "")  # standard input is /dev/null, as under cron


@pytest.mark.parametrize(
    ("redirection", "arguments", "message"),
    [("<&-", "-f -", "standard input: Bad file descriptor"), (">&-", "x", "standard output: Bad file descriptor")],
)
async def test_a_standard_stream_that_is_closed_is_a_clear_error(
    redirection: str, arguments: str, message: str
) -> None:
    shell = f"exec {sys.executable} -m crawler probe {arguments} {redirection}"
    process = await asyncio.create_subprocess_shell(shell, stderr=asyncio.subprocess.PIPE, env=environment())
    _, err = await asyncio.wait_for(process.communicate(), DEADLINE)
    assert (process.returncode, err.decode()) == (2, f"crawler: {message}\n")


# --- Results in a file ---


async def test_a_file_gets_results_and_standard_output_nothing(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "results"
    ended = await probing(site.url("/ok"), "bad", "-o", str(file))
    assert (ended.code, ended.out, ended.err) == (1, "", "")
    written = Ended(0, await asyncio.to_thread(file.read_text), "")
    assert written.outcomes == ["ok", "invalid"]


# --- Ctrl-C ---


@pytest.mark.parametrize("to_file", [False, True], ids=["pipe", "file"])
async def test_ctrl_c_ends_it_and_every_line_written_is_whole(to_file: bool, site: Site, tmp_path: Path) -> None:
    file = tmp_path / "results"
    oks = [site.url(f"/ok?{number}") for number in range(20)]
    where = ["-o", str(file)] if to_file else []
    async with started("probe", "--method=GET", *oks, site.url("/hang"), *where) as process:
        await site.until(lambda: len(site.requests) == 21 and site.active == 1)
        process.send_signal(signal.SIGINT)
        ended = await end_of(process)
    unfinished = file.with_name("results.part")
    written = ended._replace(out=await asyncio.to_thread(unfinished.read_text)) if to_file else ended
    assert ended.code == 130
    assert re.match(r"crawler: stopped; \d+ URLs in \d+\.\d s \(", ended.err)
    assert ended.err.endswith(f" s. --resume {file} goes on\n" if to_file else " s\n")
    assert {record["url"] for record in written.records} <= set(oks)
    assert written.records
    assert "Traceback" not in ended.err


# --- On a terminal ---


async def test_a_terminal_shows_a_table_and_below_it_a_bar(site: Site) -> None:
    terminal = Terminal()
    urls = [site.url("/ok"), site.url("/status/404"), site.url("/redirect/1"), CLOSED_PORT]
    ended = await run_crawler("probe", "--retries=0", *urls, stdout=terminal.slave, stderr=terminal.slave)
    assert ended.code == 1
    head, *rows, bar, summary, below = screen(await asyncio.to_thread(terminal.read))
    assert head.split() == ["outcome", "status", "ms", "url"]
    shown = sorted(" ".join(row.split()[:2] + row.split()[3:]) for row in (row.partition(": ")[0] for row in rows))
    assert shown == [
        f"failed - {CLOSED_PORT} tcp.refused",
        f"http_error 404 {site.url('/status/404')}",
        f"ok 200 {site.url('/ok')}",
        f"ok 200 {site.url('/redirect/1')} -> {site.url('/ok')}",
    ]
    assert re.fullmatch(r"\S+ 4/4 \d+/s \S+ 2 ok  1 http error  1 failed", bar)
    assert summary.startswith("crawler: 4 URLs in ")
    assert below == ""


async def test_nothing_in_a_url_steers_the_terminal() -> None:
    terminal = Terminal()
    evil = "\x1b[2J\x1b]0;title\x07\x9b31m\r\n\u202e"
    ended = await probing(f"http://a/{evil}", f"{evil}://a/", stdout=terminal.slave)
    assert (ended.code, ended.err) == (1, "")
    written = await asyncio.to_thread(terminal.read)
    rows = screen(written)[1:-1]
    assert len(rows) == 2
    for row in rows:
        assert row.isprintable()
        assert "\N{REPLACEMENT CHARACTER}[2J" in row
    assert not {"\x07", "\x9b", "\u202e"} & set(written)


@pytest.mark.parametrize("format_", ["ndjson", "csv"])
async def test_a_bar_stands_on_standard_error_while_results_go_elsewhere(format_: str, site: Site) -> None:
    terminal = Terminal()
    ended = await run_crawler("probe", f"--format={format_}", site.url("/ok"), "bad", stderr=terminal.slave)
    assert len(ended.out.splitlines()) == 2 + (format_ == "csv")
    assert "\x1b" not in ended.out
    *_, bar, _, below = screen(await asyncio.to_thread(terminal.read))
    assert re.fullmatch(r"\S+ 2/2 \d+/s \S+ 1 ok  1 invalid", bar)
    assert below == ""


async def test_no_bar_cuts_through_lines_that_are_for_copying(site: Site) -> None:
    terminal = Terminal()
    arguments = ["probe", "--format=ndjson", site.url("/ok")]
    ended = await run_crawler(*arguments, stdout=terminal.slave, stderr=terminal.slave)
    assert ended.code == 0
    [record] = Ended(0, (await asyncio.to_thread(terminal.read)).replace("\r\n", "\n"), "").records
    assert record["outcome"] == "ok"


# --- Options ---


async def test_what_the_environment_says_reaches_the_target(site: Site) -> None:
    env = {
        "CRAWLER_METHOD": "GET",
        "CRAWLER_HEADER": "X-One: 1\nX-Two: a b",
        "CRAWLER_USER_AGENT": "someone",
        "CRAWLER_FORMAT": "csv",
        "CRAWLER_MAX_REDIRECTS": "0",
    }
    ended = await probing(site.url("/redirect/1"), env=env)
    assert ended.out.startswith("seq,url,")
    [request] = site.requests
    assert request.method == "GET"
    assert [request.header(name) for name in ("X-One", "X-Two", "User-Agent")] == ["1", "a b", "someone"]


async def test_options_reach_the_network(names: DnsServer, authority: Authority) -> None:
    names.a("good.test", "127.0.0.1")
    async with Site(tls=authority.good("good.test")) as site:
        url = site.url("/ok", host="good.test")
        ended = await probing(url, "--dns", names.address, "--cafile", str(authority.cafile), "-4")
        assert ended.outcomes == ["ok"]
        assert ended.records[0]["tls"]["version"] == "TLSv1.3"


def said_by(capfd: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """What the command says, in this process."""
    code = main(list(arguments))
    return Ended(code, *capfd.readouterr())


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of messages are not broken."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize(
    ("command", "records"), [("probe", [Options]), ("serve", [Options, ServiceOptions])], ids=["probe", "serve"]
)
def test_help_mentions_every_option_and_its_variable(
    command: str, records: list[type[CheckedOptions]], option: str, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = said_by(capfd, command, option)
    assert (ended.code, ended.err) == (0, "")
    for flag in [flag for record in records for flag in flags_of(record)]:
        if flag.is_hidden:
            assert flag.names[0] not in ended.out
            continue
        for name in (*flag.names, flag.variable.name):
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", ended.out), name
        assert flag.help.partition(" ")[0] in ended.out
    for name in {"probe": ["--file", "-f", "--input", "--column", "--format", "--output", "-o"], "serve": []}[command]:
        assert name in ended.out


def test_help_lists_the_commands(capfd: pytest.CaptureFixture[str]) -> None:
    for option in ("--help", "-h"):
        ended = said_by(capfd, option)
        assert (ended.code, ended.err) == (0, "")
        assert re.search(r"serve\s+Serve ", ended.out)
        assert re.search(r"probe\s+Probe ", ended.out)


def test_the_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert said_by(capfd, "--version") == Ended(0, f"{VERSION}\n", "")
    verbose = said_by(capfd, "--version", "-v")
    assert re.fullmatch(rf"{re.escape(VERSION)}\nTLS: rustls [0-9.]+, OpenSSL [0-9.]+\n", verbose.out)


USAGE = {
    "an unknown option": (["probe", "--bogus", "x"], "--bogus"),
    "an unknown command": (["bogus"], "'bogus'"),
    "no url": (["probe"], "URL"),
    "too much": (["serve", "extra"], "(extra)"),
    "a value missing": (["probe", "x", "--timeout"], "--timeout"),
    "no number": (["probe", "--concurrency=x", "x"], "--concurrency"),
    "too small": (["probe", "--concurrency=0", "x"], "--concurrency"),
    "too large": (["serve", "--port=65536"], "--port"),
    "too large, without the command": (["--port=65536"], "--port"),
    "no method": (["probe", "--method=PUT", "x"], "--method: 'PUT' is none of GET, HEAD, auto"),
    "no registry": (["serve", "--registry=x"], "--registry: 'x' is not of the form memory|sqlite[:///PATH]"),
    "a URL without a command": (["http://a/"], "Did you mean: crawler probe http://a/"),
    "a host without a command": (["example.org"], "Did you mean: crawler probe example.org"),
    "a file without a command": ([__file__], f"Did you mean: crawler probe --file {__file__}"),
    "no format": (["probe", "--format=xml", "x"], "--format"),
    "no format of input": (["probe", "--input=xml", "x"], "--input"),
    "no header": (["probe", "--header=nocolon", "x"], "--header"),
    "a reserved header": (["probe", "-H", "Host: a", "x"], "--header"),
    "a header of two lines": (["probe", "-H", "A: b\nC: d", "x"], "--header"),
    "a user agent of two lines": (["probe", "--user-agent=a\nb", "x"], "--user-agent"),
    "no dns server": (["probe", "--dns=x", "x"], "--dns"),
    "both families": (["probe", "-4", "-6", "x"], "--ipv4"),
    "no authorities": (["probe", "--cafile=/nonexistent", "x"], "cafile: /nonexistent: No such file or directory"),
    "empty authorities": (["probe", "--cafile=/dev/null", "x"], "cafile: /dev/null: "),
    "no authorities to serve with": (["serve", "--port=0", "--cafile=/nonexistent"], "cafile: /nonexistent: "),
    "no network": (["probe", "--allow=x", "x"], "allow: 'x' is not a network"),
    "no regular expression": (["probe", "--match=(", "x"], "--match"),
    "no proxy": (["probe", "--proxy=x", "x"], "--proxy"),
    "no address for a name": (["probe", "--resolve=a:80:b", "x"], "--resolve"),
    "no file": (["probe", "-f", "/nonexistent"], "/nonexistent: No such file or directory"),
    "a directory": (["probe", "-f", "/"], "/: Is a directory"),
    "no output": (["probe", "x", "-o", "/nonexistent/x"], "/nonexistent/x: No such file or directory"),
    "an output that is a directory": (["probe", "x", "-o", "/"], "/: Is a directory"),
    "not our address": (
        ["serve", "--port=0", "--host=203.0.113.1", "--allow-anonymous"],
        "cannot listen on 203.0.113.1:0: ",
    ),
    "no host": (
        ["serve", "--port=0", "--host=bogus.invalid", "--allow-anonymous"],
        "cannot listen on bogus.invalid:0: ",
    ),
}


@pytest.mark.parametrize(("arguments", "named"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_told_in_one_line_that_names_it(
    arguments: list[str], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = said_by(capfd, *arguments)
    assert (ended.code, ended.out) == (2, "")
    [line] = ended.err.splitlines()
    assert line.startswith("crawler: ")
    assert named in line


def test_a_port_in_use_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with busy_port() as port:
        ended = said_by(capfd, "serve", f"--port={port}")
    assert (ended.code, ended.out) == (2, "")
    message = rf"crawler: cannot listen on 127\.0\.0\.1:{port}: .*in use.*; --host and --port name another address\n"
    assert re.fullmatch(message, ended.err)


# --- The service ---


@pytest.mark.parametrize(
    ("arguments", "stop"),
    [(["--port", "0"], signal.SIGTERM), (["serve", "--port", "0"], signal.SIGINT), ([], signal.SIGTERM)],
    ids=["by default", "by name", "by environment"],
)
async def test_it_serves_says_where_and_stops(arguments: list[str], stop: signal.Signals, site: Site) -> None:
    env = {"CRAWLER_LOG_LEVEL": "warning", "CRAWLER_DRAIN": "0", **({} if arguments else {"CRAWLER_PORT": "0"})}
    async with started(*arguments, env=env) as process, aiohttp.ClientSession() as client:
        assert process.stdout
        said = ""
        while "Probes reach" not in said:
            line = await process.stdout.readline()
            assert line, await end_of(process)
            said += line.decode()
        found = re.search(r"on (http://127\.0\.0\.1:\d+)\.", said)
        assert found
        where = found[1]
        assert f"curl {where}/submit" in said
        async with client.post(f"{where}/submit", json={"urls": [site.url("/ok"), site.url("/hang")]}) as response:
            task = (await response.json())["task_id"]
        await site.until(lambda: len(site.requests) == 2)
        async with client.get(f"{where}/tasks/{task}") as response:
            assert (await response.json())["status"] == "running"
        process.send_signal(stop)
        ended = await end_of(process)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


async def test_it_starts_beside_a_kubernetes_service_of_its_name() -> None:
    """Kubelet sets these variables in each container, unless `enableServiceLinks` is false."""
    env = {
        "CRAWLER_SERVICE_HOST": "10.96.0.7",
        "CRAWLER_SERVICE_PORT": "7777",
        "CRAWLER_SERVICE_PORT_HTTP": "7777",
        "CRAWLER_PORT": "tcp://10.96.0.7:7777",
        "CRAWLER_PORT_7777_TCP": "tcp://10.96.0.7:7777",
        "CRAWLER_PORT_7777_TCP_PROTO": "tcp",
        "CRAWLER_PORT_7777_TCP_PORT": "7777",
        "CRAWLER_PORT_7777_TCP_ADDR": "10.96.0.7",
    }
    async with started("serve", "--port", "0", "--registry", "memory", env=env) as process:
        assert process.stdout
        assert b"crawler serves on http://127.0.0.1:" in await process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert (await end_of(process)).code == 0


def test_a_start_imports_neither_the_prober_nor_the_server() -> None:
    """They take longer to import than all the rest."""
    program = (
        "import sys, crawler, crawler.cli.main;"
        "slow = ('aiohttp', 'crawler.compose', 'crawler.probing', 'crawler.transport', 'rich.console');"
        "sys.exit(','.join(name for name in sys.modules if name in slow) or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
