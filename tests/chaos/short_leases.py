"""A service or worker process whose leases are short, so that other processes get its work soon.

    python -m tests.chaos.short_leases --lease 2 serve --redis URL
    python -m tests.chaos.short_leases --lease 2 worker --redis URL --processes 2

It takes those flags of `crawler` that the tests of faults need, and prints the same first line.
"""

import argparse

from crawler.cli.worker_command import run_worker
from crawler.core.options import Options
from crawler.core.service_options import ServiceOptions
from crawler.service import run_service
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.redis.settings import FleetSettings


def main() -> None:
    """Run until a signal ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.short_leases", description=__doc__.splitlines()[0])
    parser.add_argument("--lease", type=float, required=True, help="seconds of each lease")
    parser.add_argument("command", choices=["serve", "worker"])
    parser.add_argument("--redis", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--per-host", type=int, default=Options().per_host)
    parser.add_argument("--guard", default="auto")
    parser.add_argument("--drain", type=float, default=ServiceOptions().drain)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    settings = FleetSettings(
        chunk_lease_seconds=given.lease,
        leader_lease_seconds=given.lease,
        stalled_check_seconds=given.lease / 4,
        stalled_after_seconds=2 * given.lease,
    )
    registry = RedisRegistry(given.redis, settings)
    options = Options(per_host=given.per_host, guard=given.guard, processes=given.processes)
    service = ServiceOptions(redis=given.redis, drain=given.drain)
    if given.command == "worker":
        run_worker(options, service, registry)
    else:
        run_service(
            port=given.port,
            options=options,
            service=service,
            registry=registry,
            announce=lambda url: print(f"crawler serves on {url}.", flush=True),
        )


if __name__ == "__main__":
    main()
