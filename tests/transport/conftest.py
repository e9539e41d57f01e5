"""Every test of this folder that may open a connection runs with each kind of poller."""

import inspect
import select
import sys

import pytest

# Here a process of its own makes the connections.
WITHOUT_POLLER = {"test_platforms"}

needs_epoll = pytest.mark.skipif(sys.platform != "linux", reason="epoll exists on Linux only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__.rpartition(".")[2]
    uses_loop = inspect.iscoroutinefunction(metafunc.function) or "run_on_loop" in metafunc.fixturenames
    if uses_loop and module not in WITHOUT_POLLER:
        metafunc.parametrize("poller_kind", [pytest.param("epoll", marks=needs_epoll), "loop"], indirect=True)


@pytest.fixture(autouse=True)
def poller_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `open_poller` open a poller of this kind in this test."""
    if getattr(request, "param", None) == "loop":
        monkeypatch.delattr(select, "epoll", raising=False)
