"""The servers of the benchmarks, once for all of their tests."""

from collections.abc import Iterator

import pytest

from bench.world import World, build_helpers, running_world


@pytest.fixture(scope="package")
def world() -> Iterator[World]:
    build_helpers()
    with running_world() as world:
        yield world
