"""Run the contenders in turn over the workloads, check their records, and report: `python -m bench.run --help`."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench.check import Checked, check_records, check_requests
from bench.contenders import CONTENDERS, LIAR, OURS, Contender, Job
from bench.kinds import Kind
from bench.report import Report, Run, environment
from bench.workloads import WORKLOADS, Workload
from bench.world import BENCH, CACHE, World, build, running_world

__all__ = ["main"]

MAX_RUN_SECONDS: Final = 600  # then a run is stopped, and counts as wrong
PAUSE_SECONDS: Final = 0.3  # for the servers, between two runs
MAX_TIME_WAITS: Final = 100_000  # more sockets in that state, which lasts a minute, slow all contenders down


class Cost(NamedTuple):
    """The output of `measure`: unix seconds, seconds, KiB, and the wait status of the process."""

    started: float
    wall: float
    user: float
    system: float
    rss_kib: int
    status: int


def main() -> int:
    """Measure and report; return 1 if a run of this prober was wrong."""
    options = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops the servers, as Ctrl-C does
    build()
    core = _pin()
    versions = {contender: contender.version() for contender in CONTENDERS if contender.name in options.contenders}
    report = Report(
        environment=environment(quick=options.quick, rounds=options.rounds, pinned=core is not None),
        versions={contender.name: version for contender, version in versions.items()},
        titles={load.id: load.title for load in WORKLOADS if load.id in options.only},
    )
    with running_world() as world:
        bench = Bench(world, core, quick=options.quick)
        bench.warm_up([contender for contender, version in versions.items() if version])
        for load in WORKLOADS:
            if load.id in options.only:
                bench.run(load, options.rounds, report)
    report.save(CACHE / "results" if options.quick else BENCH / "results")
    print(report.table())
    return int(any(run.faults or run.wrong for run in report.runs if run.contender == OURS))


class Bench:
    """Runs contenders against the servers, on a core of their own if there is one."""

    def __init__(self, world: World, core: int | None, *, quick: bool) -> None:
        self._world = world
        self._core = core
        self._quick = quick
        self._contenders: list[Contender] = []

    def warm_up(self, contenders: list[Contender]) -> None:
        """Run each contender once without measuring it, to fill caches."""
        self._contenders = contenders
        for contender in contenders:
            able = (load for load in WORKLOADS if not contender.reason_to_skip(load, self._world))
            if load := next(able, None):
                self._run(contender, load, 0, load.urls(self._world, quick=True))

    def run(self, load: Workload, rounds: int, report: Report) -> None:
        """Run all contenders in turn; each round starts with another one."""
        reasons = {contender: contender.reason_to_skip(load, self._world) for contender in self._contenders}
        report.skipped += [(load.id, contender.name, why) for contender, why in reasons.items() if why]
        able = [contender for contender, why in reasons.items() if not why]
        urls = load.urls(self._world, quick=self._quick)
        for number in range(rounds):
            first = number % max(len(able), 1)
            for contender in able[first:] + able[:first]:
                run = self._run(contender, load, number, urls)
                report.runs.append(run)
                print(run, file=sys.stderr, flush=True)

    def _run(self, contender: Contender, load: Workload, number: int, expected: dict[str, Kind]) -> Run:
        """Run one contender over one workload, and check its records."""
        world = self._world
        stdout, err = world.directory / "stdout", world.directory / "stderr"
        job = Job(load, world, world.directory / f"{load.id}-{len(expected)}.txt", world.directory / "out")
        if not job.urls.exists():
            job.urls.write_text("".join(f"{url}\n" for url in expected))
        _pause()
        job.out.unlink(missing_ok=True)
        world.clear_log()
        before = world.requests()
        cost = self._measure(contender.arguments(job), stdout, err)
        requests = world.requests() - before - 1
        checked = _check(contender, job.out if job.out.exists() else stdout, expected)
        faults = [
            *checked.faults,
            *([] if load.graded else checked.wrong),
            *check_requests(load, checked.right, requests, cost.wall),
            *([f"ended by signal {os.WTERMSIG(cost.status)}"] if os.WIFSIGNALED(cost.status) else []),
        ]
        if faults and cost.status:
            faults.append(_last_error_line(err))
        return Run(
            workload=load.id,
            contender=contender.name,
            round=number,
            probes=len(expected),
            wall=cost.wall,
            user=cost.user,
            system=cost.system,
            rss_mib=cost.rss_kib / 1024,
            fast_done=max(world.last_logged() - cost.started, 0.0) if load.logged else None,
            right=checked.right.total(),
            wrong=checked.wrong,
            faults=faults,
        )

    def _measure(self, command: list[str], out: Path, err: Path) -> Cost:
        core = -1 if self._core is None else self._core
        started, wall, user, system, rss, status = subprocess.run(
            [CACHE / "bin" / "measure", str(core), str(MAX_RUN_SECONDS), out, err, *command],
            cwd=BENCH.parent,
            env=_clean_environment(),
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        return Cost(float(started), float(wall), float(user), float(system), int(rss), int(status))


def _parse() -> argparse.Namespace:
    loads = [load.id for load in WORKLOADS]
    known = [contender.name for contender in CONTENDERS]
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--rounds", type=int, help="number of rounds; default 5, or 1 with --quick")
    parser.add_argument(
        "--only", type=_some_of(loads), default=loads, metavar="NAME,...", help=f"workloads, of {', '.join(loads)}"
    )
    parser.add_argument(
        "--contenders",
        type=_some_of(known),
        default=[name for name in known if name != LIAR],
        metavar="NAME,...",
        help=f"contenders, of {', '.join(known)}; default all but {LIAR}, which shows that the checks work",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the URLs: shows that it works, and measures little"
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    return options


def _some_of(choices: list[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(choices):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(choices)}")
        return names

    return parse


def _check(contender: Contender, out: Path, expected: dict[str, Kind]) -> Checked:
    """Read a contender's records and check them."""
    try:
        return check_records(contender.read(out), expected)
    except (OSError, ValueError, KeyError) as error:
        return Checked(Counter(), [], [f"unreadable records: {type(error).__name__}: {error}"])


def _pin() -> int | None:
    """Reserve the last core for the contenders, and return it; None if there is only one core."""
    *others, last = sorted(os.sched_getaffinity(0))
    if not others:
        return None
    os.sched_setaffinity(0, others)
    return last


def _pause() -> None:
    """Wait until the servers are idle, and until the machine has not too many sockets in TIME_WAIT."""
    time.sleep(PAUSE_SECONDS)
    for _ in range(60):
        words = Path("/proc/net/sockstat").read_text().split()
        if int(words[words.index("tw") + 1]) < MAX_TIME_WAITS:
            break
        time.sleep(1)


def _clean_environment() -> dict[str, str]:
    """Return this environment without proxies and other variables that change how the contenders run."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and not name.startswith(("CRAWLER_", "PYTHON", "SSL_", "CURL_"))
    }


def _last_error_line(err: Path) -> str:
    lines = err.read_text(errors="replace").split("\n")
    return "its last message: " + next((line.strip() for line in reversed(lines) if line.strip()), "none")[:200]


if __name__ == "__main__":
    sys.exit(main())
