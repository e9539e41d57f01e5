"""Restarts under load: no acknowledged batch is lost, and no response is cut off."""

import asyncio
import itertools
import json
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.support.process import Served, field, free_port, registry_flags, request, summary_of
from tests.support.site import Site

CLIENTS = 6
RESTARTS = 4
PER_ROUND = 30  # batches that are acknowledged before the next restart


class Broken(Exception):
    """A connection ended in the middle of a response."""


class Client:
    """Submits on a kept connection; tries again if it cannot connect, or gets no byte of a response."""

    def __init__(self, port: int, new_url: Callable[[], str], acknowledged: dict[str, list[str]]) -> None:
        self._address = ("127.0.0.1", port)
        self._new_url = new_url
        self._acknowledged = acknowledged
        self._socket: socket.socket | None = None
        self._loop = asyncio.get_running_loop()

    async def work(self) -> None:
        try:
            for size in itertools.cycle((1, 4, 9)):
                await self._submit([self._new_url() for _ in range(size)])
        finally:
            self._leave()

    async def _submit(self, urls: list[str]) -> None:
        try:
            if self._socket is None:
                self._socket = socket.socket()
                self._socket.setblocking(False)
                await self._loop.sock_connect(self._socket, self._address)
            await self._loop.sock_sendall(self._socket, request("POST", "/submit", json.dumps({"urls": urls}).encode()))
            answer = await self._answer(self._socket)
        except ConnectionError:
            self._leave()
            await asyncio.sleep(0.01)  # as clients do before they try again
            return
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200 "):
            self._acknowledged[json.loads(body)["task_id"]] = urls
        else:
            assert head.startswith(b"HTTP/1.1 503 "), answer
        if field(head, b"connection") == b"close":
            self._leave()

    async def _answer(self, connection: socket.socket) -> bytes:
        answer = b""
        while not is_whole(answer):
            try:
                more = await self._loop.sock_recv(connection, 65536)
            except ConnectionError:
                more = b""
            if not more:
                if answer:
                    raise Broken(answer)
                raise ConnectionError
            answer += more
        return answer

    def _leave(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    return bool(end) and len(body) == int(field(head, b"content-length"))


async def test_what_was_acknowledged_is_done_however_often_the_service_restarts(site: Site, tmp_path: Path) -> None:
    numbers, acknowledged = itertools.count(), dict[str, list[str]]()
    port, run = free_port(), (*registry_flags(tmp_path), "--per-host", "100", "--retries", "0")

    def new_url() -> str:
        number = next(numbers)
        return site.url(f"/delay/0.05?{number}", host=f"127.0.0.{1 + number % 20}")

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(Client(port, new_url, acknowledged).work()) for _ in range(CLIENTS)]
        for _ in range(RESTARTS):
            async with Served(*run, port=port) as service:
                enough = len(acknowledged) + PER_ROUND
                await site.until(lambda enough=enough: len(acknowledged) >= enough)  # type: ignore[misc]
                service.process.terminate()
                assert await service.process.wait() == 0
        for client in clients:
            client.cancel()
    async with Served(*run, port=port) as service:
        for task_id, urls in acknowledged.items():
            task = await summary_of(service, task_id)
            assert (task["status"], task["counts"]["ok"]) == ("ready", len(urls)), task
    asked = Counter(f"http://{each.host}{each.path}" for each in site.requests)
    assert {asked[url] for urls in acknowledged.values() for url in urls} == {1}
