"""Proxies that other people wrote, on loopback: tinyproxy (HTTP) and microsocks (SOCKS5). `make system` installs them.

with run_real_proxy("tinyproxy", tmp_path, "user:password") as port: ...
"""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.support.process import free_port

_DEADLINE_SECONDS: Final = 20.0
_START_ATTEMPTS: Final = 3  # another process can take the port before the proxy does


def _tinyproxy(port: int, scratch: Path, credentials: str) -> list[str]:
    lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "MaxClients 100", f'LogFile "{scratch}/tinyproxy.log"']
    if credentials:
        lines.append("BasicAuth " + credentials.replace(":", " "))
    (scratch / "tinyproxy.conf").write_text("\n".join([*lines, ""]))
    return ["/usr/bin/tinyproxy", "-d", "-c", str(scratch / "tinyproxy.conf")]


def _microsocks(port: int, scratch: Path, credentials: str) -> list[str]:
    user, _, password = credentials.partition(":")
    return ["/usr/bin/microsocks", "-i", "127.0.0.1", "-p", str(port), *(["-u", user, "-P", password] if user else [])]


REAL_PROXIES: Final[dict[str, Callable[[int, Path, str], list[str]]]] = {
    "tinyproxy": _tinyproxy,
    "microsocks": _microsocks,
}


@contextlib.contextmanager
def run_real_proxy(name: str, scratch: Path, credentials: str = "") -> Iterator[int]:
    """Run a proxy for the length of a `with`; yields its port."""
    for _ in range(_START_ATTEMPTS):
        port = free_port()
        command = REAL_PROXIES[name](port, scratch, credentials)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if _is_up(process, port):
                yield port
                return
        finally:
            process.kill()
            process.wait(_DEADLINE_SECONDS)
    raise AssertionError(f"{name} does not start")


def _is_up(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Wait until the proxy listens, or has ended."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        time.sleep(0.01)
    return False
