"""A full disk is no dead end: what is there can be read, cancelled and deleted, and the service starts.

The disk is a tmpfs that a file fills to its last byte: the kernel says ENOSPC, and SQLite SQLITE_FULL
(https://sqlite.org/rescode.html#full).
"""

import sys
from pathlib import Path

import pytest

from crawler.stores.sqlite.reserve import Reserve
from tests.support.isolated_process import can_unshare, run_and_read

FILL = """
import os

def fill(folder):
    with open(folder / "ballast", "ab", buffering=0) as ballast:
        for size in (65536, 4096, 512):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError:
                pass
"""

SERVICE = (
    FILL
    + """
import asyncio, json, signal, sys
from pathlib import Path
from prometheus_client.parser import text_string_to_metric_families
from tests.support.process import Served, batch_body, registry_flags, submit_to, summary_of

def big(name):
    return [f"::{name}/{number}/" + "x" * 200 for number in range(400)]

async def room(service):
    text = (await service.ask("GET", "/metrics")).body.decode()
    metrics = {family.name: family.samples for family in text_string_to_metric_families(text)}
    return metrics["crawler_store_room_bytes"][0].value

async def check_full(service, ids):
    ready = await service.ask("GET", "/readyz")
    assert (ready.status, json.loads(ready.body)["checks"]["store"]) == (503, "has no space left"), ready
    refused = await service.ask("POST", "/submit", batch_body("http://a/"))
    assert refused.status == 507 and b"only be read, cancelled and deleted" in refused.body, refused
    assert await room(service) == 0
    for task_id in ids:
        page = await service.ask("GET", f"/api/v1/tasks/{task_id}/results?limit=400")
        assert len(json.loads(page.body)["results"]) == 400

async def main():
    folder = Path(sys.argv[1])
    async with Served(*registry_flags(folder)) as service:
        ids = [await submit_to(service, *big(name)) for name in range(8)]
        for task_id in ids:
            await summary_of(service, task_id)
        assert (await service.ask("GET", "/readyz")).status == 200
        assert await room(service) > 0
        await service.stops()
        await service.process.wait()
    async with Served(*registry_flags(folder)) as service:
        fill(folder)  # the log is short, so each write needs space
        await check_full(service, ids)
        for task_id in ids[:4]:
            assert (await service.ask("DELETE", f"/tasks/{task_id}")).status == 204
        await service.stops(signal.Signals[sys.argv[2]])
        await service.process.wait()
    fill(folder)
    async with Served(*registry_flags(folder)) as service:
        fill(folder)
        await check_full(service, ids[4:])
        for task_id in ids[4:]:
            assert (await service.ask("DELETE", f"/tasks/{task_id}")).status == 204
        (folder / "ballast").unlink()
        await submit_to(service, *big("new"))
        while (await service.ask("GET", "/readyz")).status != 200:
            await asyncio.sleep(0.1)  # the previous answer is kept for a second
    print('"as it should be"')

asyncio.run(main())
"""
)

CANCEL = (
    FILL
    + """
import asyncio, os, sys
from pathlib import Path
from crawler import Options, StoreError
from crawler.core.errors import StoreFull
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.registries import make_result

async def endless():
    for number in range(10**9):
        yield f"http://a/{number}/" + "x" * 500

async def main():
    path = Path(sys.argv[1], "tasks.db")
    async with SqliteRegistry(path) as registry:
        task = await registry.submit([f"http://a/{number}" for number in range(1000)], Options())
        try:
            await registry.submit(endless(), Options())
        except StoreFull:
            pass
        room = os.statvfs(sys.argv[1])
        assert room.f_bavail * room.f_frsize > 2**19, "what is left is for results"
        await registry.record(task.id, [make_result(number, f"http://a/{number}") for number in range(500)])
        fill(path.parent)
        await registry.finish(task.id, "error", "cancelled")
    async with SqliteRegistry(path) as registry:
        assert (registry.task(task.id).status, registry.task(task.id).counts.done) == ("error", 500)
    print('"as it should be"')

asyncio.run(main())
"""
)


@pytest.mark.skipif(not can_unshare(), reason="needs `unshare --mount`")
@pytest.mark.parametrize("size", ["32m", "160m"])
@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        pytest.param(SERVICE, ["SIGTERM"], id="stopped"),
        pytest.param(SERVICE, ["SIGKILL"], id="killed"),
        pytest.param(CANCEL, [], id="cancelled"),
    ],
)
async def test_a_full_disk_is_no_dead_end(program: str, arguments: list[str], size: str, tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size="$1" none "$2" && shift && exec "$2" -c "$3" "$1" $4'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", size, str(tmp_path), sys.executable, program, *arguments]
    code, out, err = await run_and_read(command, [])
    assert (code, out) == (0, ["as it should be"]), err


START = (
    FILL
    + """
import subprocess, sys
from pathlib import Path
from crawler.stores.sqlite.connection import migrate

def crawler(*arguments):
    ended = subprocess.run([sys.executable, "-m", "crawler", *arguments], capture_output=True, text=True, timeout=20)
    assert ended.stdout == "" and ended.stderr.count("\\n") == 1, ended
    return ended.returncode, ended.stderr

def serve(path):
    return crawler("serve", "--port", "0", "--registry", f"sqlite:///{path}")

folder = Path(sys.argv[1])
path = folder / "tasks.db"
migrate(path)
fill(folder)
for each in (path, folder / "new.db"):
    assert serve(each) == (2, f"crawler: {each}: cannot be opened, because its disk is full: make room there\\n")
(folder / "ballast").unlink()
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
for each in (path, folder / "none.db", folder / "none" / "tasks.db"):
    assert serve(each) == (2, f"crawler: {each}: cannot be used: Read-only file system\\n")
assert crawler("verify", str(path)) == (0, f"{path} is sound.\\n")
assert crawler("backup", str(folder / "copy.db"), "--registry", f"sqlite:///{path}") == (
    2, f"crawler: {folder / 'copy.db'}: cannot be created: Read-only file system\\n"
)
print('"as it should be"')
"""
)


@pytest.mark.skipif(not can_unshare(), reason="needs `unshare --mount`")
async def test_a_start_without_room_or_on_a_read_only_disk_is_refused_in_a_line(tmp_path: Path) -> None:
    """The kernel's words: ENOSPC and EROFS (errno(3))."""
    script = 'mount -t tmpfs -o size=8m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, START]
    code, out, err = await run_and_read(command, [])
    assert (code, out) == (0, ["as it should be"]), err


def test_the_reserve_is_released_in_parts_and_filled_again(tmp_path: Path) -> None:
    reserve, file = Reserve(tmp_path / "tasks.db", 2**20), tmp_path / "tasks.db.reserve"
    assert reserve.fill()
    assert file.stat().st_size == 2**20
    assert file.stat().st_blocks * 512 >= 2**20, "a hole would keep no space"
    released = 0
    while reserve.release(0.5):
        released += 1
    assert (released, file.stat().st_size) == (4, 2**19)
    while reserve.release():
        released += 1
    assert (released, file.stat().st_size) == (8, 0)
    reserve.check()
    assert file.stat().st_size == 2**20
