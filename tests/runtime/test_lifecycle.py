"""What systemd is told, on a socket as its own."""

import asyncio
import configparser
import os
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from crawler import ServiceOptions
from crawler.cli.flags import flags_of
from crawler.runtime.lifecycle import SystemdNotifier, stop_signals
from tests.support.documents import ROOT
from tests.support.gate import Gate
from tests.support.process import Served, request
from tests.support.site import Site


class Systemd:
    """Hears what is sent to a socket."""

    def __init__(self, heard: socket.socket, name: str) -> None:
        self.name = name
        self.socket = heard

    async def next(self) -> str:
        return (await asyncio.get_running_loop().sock_recv(self.socket, 4096)).decode()

    async def until(self, state: str) -> None:
        while await self.next() != state:
            pass


@asynccontextmanager
async def systemd(name: str) -> AsyncIterator[Systemd]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.setblocking(False)
        heard.bind("\0" + name[1:] if name.startswith("@") else name)
        yield Systemd(heard, name)


@pytest.fixture(params=["path", "abstract"])
async def told(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Systemd]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@crawler-{uuid.uuid4()}"
    async with systemd(name) as each:
        yield each


async def test_systemd_hears_of_start_and_stop_and_of_life_until_the_end(told: Systemd, site: Site) -> None:
    gate = Gate(site)
    environment = {"NOTIFY_SOCKET": told.name, "WATCHDOG_USEC": "100000"}
    async with Served("--registry", "memory", "--timeout", "60", environment=environment) as service:
        await told.until("READY=1")
        await told.until("WATCHDOG=1")
        caller = await service.connect()
        await caller.send(request("GET", f"/api/v1/probe?url={site.url('/gate')}"))
        await site.until(lambda: site.active == 1)
        service.process.send_signal(signal.SIGTERM)
        await told.until("STOPPING=1")
        await told.until("WATCHDOG=1")
        gate.is_open.set()
        assert (await caller.reply()).status == 200
        assert await service.process.wait() == 0


async def test_a_loop_that_is_stuck_gives_no_sign_of_life(told: Systemd) -> None:
    async with SystemdNotifier(
        {"NOTIFY_SOCKET": told.name, "WATCHDOG_USEC": "40000", "WATCHDOG_PID": str(os.getpid())}
    ):
        assert [await told.next() for _ in range(3)] == ["WATCHDOG=1"] * 3
        time.sleep(0.2)  # noqa: ASYNC251 - it is the loop that has to stand still
        with pytest.raises(BlockingIOError):
            told.socket.recv(4096)
        assert await told.next() == "WATCHDOG=1"


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": ""},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "soon"},
    ],
)
async def test_a_watchdog_for_another_process_is_not_fed(watchdog: dict[str, str], told: Systemd) -> None:
    async with SystemdNotifier({"NOTIFY_SOCKET": told.name, **watchdog}) as notifier:
        for _ in range(3):
            await asyncio.sleep(0)
        notifier.notify("READY=1")
        assert await told.next() == "READY=1"


async def test_without_systemd_nothing_is_sent() -> None:
    async with SystemdNotifier({"WATCHDOG_USEC": "1000"}) as notifier:
        notifier.notify("READY=1")


async def test_a_service_goes_on_if_systemd_cannot_be_notified(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000"}) as notifier:
        notifier.notify("READY=1")
    assert "READY=1" in caplog.text


async def test_signal_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_documented_unit_fits_the_service() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    text = (ROOT / "docs/run.md").read_text(encoding="utf-8")
    unit.read_string(text.partition("```ini\n")[2].partition("```")[0])
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert int(service["TimeoutStopSec"]) >= 25
    assert service["RestartPreventExitStatus"] == "2"
    variables = {flag.variable.name for flag in flags_of(ServiceOptions)}
    assert service["Environment"].partition("=")[0] in variables
