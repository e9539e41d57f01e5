"""The service in a process of its own, and clients that see every byte."""

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self


class Reply(NamedTuple):
    """A response, whole or the part of it that came."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split()[1])


class Served:
    """`crawler serve` with some options. Leaving the context kills the process if it still runs."""

    def __init__(self, *arguments: str, port: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self._command = (sys.executable, "-m", "crawler", "serve", "--port", str(port), *arguments)
        self._environment = {**os.environ, **(environment or {})}
        self._callers: list[Caller] = []

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdout=asyncio.subprocess.PIPE
        )
        assert self.process.stdout is not None
        words = (await self.process.stdout.readline()).decode().split()
        assert words[:3] == ["crawler", "serves", "on"], words
        self.url = words[3].rstrip(".")
        self.port = int(self.url.rpartition(":")[2])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.communicate()  # to the end of its output: the loop cannot be closed before
        for caller in self._callers:
            await caller.close()

    async def stops(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal, and return when the service no longer listens."""
        self.process.send_signal(number)
        with suppress(ConnectionError):
            while True:
                await (await self.connect()).close()

    async def connect(self, tls: ssl.SSLContext | None = None) -> "Caller":
        """A new connection. Leaving the context closes it."""
        name = None if tls is None else "localhost"
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.port, ssl=tls, server_hostname=name))
        self._callers.append(caller)
        return caller

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """Send one request on a new connection."""
        caller = await self.connect()
        try:
            await caller.send(request(method, path, body, **headers))
            return await caller.reply()
        finally:
            await caller.close()


class Caller:
    """A client with one connection, which sees every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def reply(self) -> Reply:
        """Read one whole response that has a length, or no body.

        Raises:
            EOFError, ConnectionError: The connection ended early; `partial` of the former has what came.
        """
        head = await self._reader.readuntil(b"\r\n\r\n")
        return Reply(head, await self._reader.readexactly(int(field(head, b"content-length") or 0)))

    async def rest(self) -> bytes:
        """Read until the connection ends."""
        return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()


def request(method: str, path: str, body: bytes = b"", **headers: Any) -> bytes:
    """A request as bytes."""
    fields = {"Host": "localhost", "Content-Length": len(body), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def field(head: bytes, name: bytes) -> bytes:
    """The value of a header of a response; empty if it has none."""
    return next((line.partition(b":")[2].strip() for line in head.split(b"\r\n") if line.lower().startswith(name)), b"")


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def registry_flags(folder: Path) -> tuple[str, str]:
    """Flags for a registry in a folder."""
    return ("--registry", f"sqlite:///{folder}/tasks.db")


def batch_body(*urls: str) -> bytes:
    """The body of a submit."""
    return json.dumps({"urls": urls}).encode()


async def submit_to(service: Served, *urls: str) -> str:
    """Submit a batch; gives the Task's id."""
    reply = await service.ask("POST", "/submit", batch_body(*urls))
    assert reply.status == 200
    return str(json.loads(reply.body)["task_id"])


async def summary_of(service: Served, task_id: str, wait: int = 30) -> Any:
    """The summary of a Task, once it has ended or some seconds have passed."""
    return json.loads((await service.ask("GET", f"/api/v1/tasks/{task_id}?wait={wait}")).body)
