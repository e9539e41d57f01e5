"""Runs the contenders in turn over the workloads, checks what each says, and reports: `python -m bench.run --help`."""

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

from bench.contenders import CONTENDERS, LIAR, OURS, Contender, Job
from bench.report import Report, Run, environment
from bench.workloads import WORKLOADS, Kind, Workload
from bench.world import BENCH, CACHE, World, build, running_world

__all__ = ["main"]

LIMIT: Final = 120  # seconds after which a run is stopped, and wrong
REST: Final = 0.3  # seconds for the servers between two runs
TIME_WAITS: Final = 100_000  # more of them than these slow everybody down; they last a minute


class Cost(NamedTuple):
    """What `measure` prints: unix seconds, seconds, KiB, and how the process ended as `wait` tells it."""

    started: float
    wall: float
    user: float
    system: float
    rss_kib: int
    status: int


def main() -> int:
    """Measure and report; 1 if ours was wrong."""
    options = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped, as by Ctrl-C
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
    return int(any(run.faults for run in report.runs if run.contender == OURS))


class Bench:
    """Runs contenders in a world, on a core of their own if there is one."""

    def __init__(self, world: World, core: int | None, *, quick: bool) -> None:
        self._world = world
        self._core = core
        self._quick = quick
        self._contenders: list[Contender] = []

    def warm_up(self, contenders: list[Contender]) -> None:
        """Run each once for nothing: it compiles and loads what later runs find ready."""
        self._contenders = contenders
        for contender in contenders:
            self._run(contender, WORKLOADS[0], 0, WORKLOADS[0].urls(self._world, quick=True))

    def run(self, load: Workload, rounds: int, report: Report) -> None:
        """Run all in turn; another begins each round."""
        reasons = {contender: contender.why_not(load, self._world) for contender in self._contenders}
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
        """Run one contender over one workload and judge its records."""
        world = self._world
        stdout, err = world.directory / "stdout", world.directory / "stderr"
        job = Job(load, world, world.directory / f"{load.id}-{len(expected)}.txt", world.directory / "out")
        if not job.urls.exists():
            job.urls.write_text("".join(f"{url}\n" for url in expected))
        _rest()
        job.out.unlink(missing_ok=True)
        world.clear_log()
        before = world.requests()
        cost = self._measure(contender.arguments(job), stdout, err)
        requests = world.requests() - before - 1
        faults = [
            *_judge(contender, job.out if job.out.exists() else stdout, expected),
            *_impossible(load, expected, requests, cost.wall),
            *([f"ended by signal {os.WTERMSIG(cost.status)}"] if os.WIFSIGNALED(cost.status) else []),
        ]
        if faults and cost.status:
            faults.append(_last_words(err))
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
            faults=faults,
        )

    def _measure(self, command: list[str], out: Path, err: Path) -> Cost:
        core = -1 if self._core is None else self._core
        started, wall, user, system, rss, status = subprocess.run(
            [CACHE / "bin" / "measure", str(core), str(LIMIT), out, err, *command],
            cwd=BENCH.parent,
            env=_clean_environment(),
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        return Cost(float(started), float(wall), float(user), float(system), int(rss), int(status))


def _parse() -> argparse.Namespace:
    loads = [load.id for load in WORKLOADS]
    everybody = [contender.name for contender in CONTENDERS]
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--rounds", type=int, help="how often everything is run; default 5, or 1 if quick")
    parser.add_argument(
        "--only", type=_some_of(loads), default=loads, metavar="NAME,...", help=f"workloads, of {', '.join(loads)}"
    )
    parser.add_argument(
        "--contenders",
        type=_some_of(everybody),
        default=[name for name in everybody if name != LIAR],
        metavar="NAME,...",
        help=f"whom to run, of {', '.join(everybody)}; default all but {LIAR}, who shows that lies are found out",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the URLs: shows that it works, measures little"
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    return options


def _some_of(known: list[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(known)}")
        return names

    return parse


def _judge(contender: Contender, out: Path, expected: dict[str, Kind]) -> list[str]:
    """What is wrong with a contender's records: there has to be one for each URL, and it has to be right."""
    try:
        records = list(contender.read(out))
    except (OSError, ValueError, KeyError) as error:
        return [f"unreadable records: {type(error).__name__}: {error}"]
    statuses = dict(records)
    kinds = Counter(expected.values())
    wrong = Counter(
        kind for url, kind in expected.items() if url in statuses and (statuses[url] == 200) != (kind == "good")
    )
    missing = Counter(kind for url, kind in expected.items() if url not in statuses)
    return [
        *(f"{count} of {kinds[kind]} {kind} wrong" for kind, count in wrong.items()),
        *(f"{count} of {kinds[kind]} {kind} missing" for kind, count in missing.items()),
        *([f"{more} records too many"] if (more := len(records) - len(statuses.keys() & expected.keys())) else []),
    ]


def _impossible(load: Workload, expected: dict[str, Kind], requests: int, wall: float) -> list[str]:
    """What the servers know better."""
    good = sum(kind == "good" for kind in expected.values())
    if load.latency:
        least = good * load.latency / load.concurrency
        return [f"took {wall:.2f} s for what takes {least:.2f} s"] if wall < least else []
    return [f"{requests} requests for {good} answers"] if requests < good else []


def _pin() -> int | None:
    """Keep the last core for the contenders, all others for the rest. None: there is but one core."""
    *others, last = sorted(os.sched_getaffinity(0))
    if not others:
        return None
    os.sched_setaffinity(0, others)
    return last


def _rest() -> None:
    """Let the servers come to rest, and the machine run out of old connections if it has too many."""
    time.sleep(REST)
    for _ in range(60):
        words = Path("/proc/net/sockstat").read_text().split()
        if int(words[words.index("tw") + 1]) < TIME_WAITS:
            break
        time.sleep(1)


def _clean_environment() -> dict[str, str]:
    """Ours, without what would send the contenders elsewhere or have them compile at each start."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and not name.startswith(("CRAWLER_", "PYTHON", "SSL_", "CURL_"))
    }


def _last_words(err: Path) -> str:
    lines = err.read_text(errors="replace").split("\n")
    return "its last words: " + next((line.strip() for line in reversed(lines) if line.strip()), "none")[:200]


if __name__ == "__main__":
    sys.exit(main())
