"""The report of a benchmark: its runs as a table, as JSON and as an SVG chart."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, Final

__all__ = ["Report", "Run", "environment"]

OURS: Final = "ours"
COLOURS: Final = {
    "ours": "#1f6feb", "aiohttp": "#8250df", "go": "#1b7c83", "curl": "#9a6700", "lychee": "#bc4c00",
    "linkchecker": "#0550ae", "linkinator": "#116329", "httpx": "#a40e26", "floor": "#8c959f",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One contender's run over one workload. Seconds, and MiB for the largest process of its tree."""

    workload: str
    contender: str
    round: int
    probes: int
    wall: float
    user: float
    system: float
    rss_mib: float
    fast_done: float | None
    """Seconds until the last good URL was answered, in workloads that have other URLs too."""
    right: int
    """How many URLs have the right answer."""
    wrong: list[str]
    """What is wrong with the other answers."""
    faults: list[str]
    """Why the run counts for nothing."""

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per probe."""
        return (self.user + self.system) / self.probes * 1e6

    @property
    def rate(self) -> float:
        """Probes per second."""
        return self.probes / self.wall

    def __str__(self) -> str:
        """Return a line that reports the run as it ends."""
        bad = list(dict.fromkeys(self.wrong + self.faults))
        wrong = f"  WRONG: {'; '.join(bad)}" if bad else ""
        return (
            f"{self.workload:4}{self.contender:12} round {self.round + 1}: {self.cpu_us:6.0f} us a probe, "
            f"{self.rate:7.0f} probes/s, {self.wall:5.1f} s, {self.rss_mib:4.0f} MiB, "
            f"{self.right} of {self.probes} right{wrong}"
        )


@dataclass
class Report:
    """All runs of one benchmark."""

    environment: dict[str, Any]
    versions: dict[str, str | None]
    titles: dict[str, str]
    runs: list[Run] = field(default_factory=list)
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    """Workload, contender, reason."""

    def table(self) -> str:
        """Return the figures as text: medians, and the range of the ratios within a round."""
        return "\n".join(self._lines())

    def save(self, folder: Path) -> None:
        """Write a JSON and an SVG file, named by the date."""
        folder.mkdir(parents=True, exist_ok=True)
        name = self.environment["date"].replace(":", "")
        figures = [{"workload": load, "contender": who, **self._figures(load, who)} for load, who in self._pairs()]
        content = {**asdict(self), "figures": figures}
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        (folder / f"{name}.svg").write_text(self.chart())

    def chart(self) -> str:
        """Return an SVG chart: a bar for the CPU microseconds per probe, a group for each workload."""
        bars: list[str] = []
        top = 44
        for load, title in self.titles.items():
            bars.append(f'<text x="16" y="{top}" class="t">{load}: {escape(title)}</text>')
            figures = {who: self._figures(load, who)["cpu_us"] for here, who in self._pairs() if here == load}
            known = {who: cpu["median"] for who, cpu in figures.items() if cpu}
            for who, cpu in known.items():
                top += 20
                width = round(420 * cpu / max(known.values()), 1)
                bars.append(f'<text x="32" y="{top}">{who}</text>')
                bars.append(
                    f'<rect x="108" y="{top - 11}" width="{width}" height="14" fill="{COLOURS.get(who, "#57606a")}"/>'
                )
                bars.append(f'<text x="{114 + width}" y="{top}">{cpu:.0f}</text>')
            top += 36
        style = "text{font:12px sans-serif;fill:#24292f}.t{font-weight:bold}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="600" height="{top}">'
            f'<style>{style}</style><rect width="600" height="{top}" fill="#fff"/>'
            '<text x="16" y="20">CPU microseconds a probe, median: less is better. Each group has its own scale.</text>'
            f"{''.join(bars)}</svg>\n"
        )

    def _pairs(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((run.workload, run.contender) for run in self.runs))

    def _correct_runs(self, load: str, who: str) -> list[Run]:
        return [run for run in self.runs if (run.workload, run.contender) == (load, who) and not run.faults]

    def _figures(self, load: str, who: str) -> dict[str, Any]:
        """Return ranges over the correct rounds, and of the ratios within a round; None without a correct round."""
        theirs, ours = self._correct_runs(load, who), {run.round: run for run in self._correct_runs(load, OURS)}
        both = [(ours[run.round], run) for run in theirs if run.round in ours and who != OURS]
        return {
            "rounds_right": len(theirs),
            "rounds": sum((run.workload, run.contender) == (load, who) for run in self.runs),
            "cpu_us": _spread(run.cpu_us for run in theirs),
            "rate": _spread(run.rate for run in theirs),
            "wall": _spread(run.wall for run in theirs),
            "answers_right": _spread(run.right for run in theirs),
            "rss_mib": _spread(run.rss_mib for run in theirs),
            "fast_done": _spread(run.fast_done for run in theirs if run.fast_done is not None),
            "ours_to_it_cpu": _spread(mine.cpu_us / it.cpu_us for mine, it in both),
            "ours_to_it_rate": _spread(mine.rate / it.rate for mine, it in both),
        }

    def _lines(self) -> Iterator[str]:
        yield from (f"{key}: {value}" for key, value in self.environment.items())
        yield "versions: " + ", ".join(f"{who} {version}" for who, version in self.versions.items() if version)
        yield from (f"not installed, left out: {who}" for who, version in self.versions.items() if not version)
        for load, title in self.titles.items():
            yield f"\n{load}  {title}"
            yield (
                f"  {'':12}{'CPU us a probe':>22}{'probes/s':>10}{'wall s':>8}{'RSS MiB':>9}"
                f"{'CPU ours/it':>20}{'rate ours/it':>20}{'last good s':>13}{'answers right':>15}{'rounds':>8}"
            )
            yield from (self._line(load, who) for here, who in self._pairs() if here == load)
            yield from (f"  {who:12}left out: {why}" for here, who, why in self.skipped if here == load)
        yield from self._bad_runs("Wrong, and not counted:", lambda run: run.faults)
        yield from self._bad_runs("Wrong answers in runs that count:", lambda run: [] if run.faults else run.wrong)

    def _bad_runs(self, title: str, faults: Callable[[Run], list[str]]) -> Iterator[str]:
        """Yield a line for each run that has faults, after a title."""
        if bad := [run for run in self.runs if faults(run)]:
            yield f"\n{title}"
            yield from (
                f"  {run.workload} {run.contender} round {run.round + 1}: {'; '.join(faults(run))}" for run in bad
            )

    def _line(self, load: str, who: str) -> str:
        figures = self._figures(load, who)

        def show(name: str, form: Callable[[dict[str, float]], str]) -> str:
            return form(figures[name]) if figures[name] else "-"

        def spread(digits: int) -> Callable[[dict[str, float]], str]:
            return lambda of: f"{of['median']:.{digits}f} ({of['min']:.{digits}f}-{of['max']:.{digits}f})"

        def middle(digits: int) -> Callable[[dict[str, float]], str]:
            return lambda of: format(of["median"], f".{digits}f")

        return (
            f"  {who:12}{show('cpu_us', spread(0)):>22}{show('rate', middle(0)):>10}{show('wall', middle(1)):>8}"
            f"{show('rss_mib', middle(0)):>9}"
            f"{show('ours_to_it_cpu', spread(2)):>20}{show('ours_to_it_rate', spread(2)):>20}"
            f"{show('fast_done', middle(2)):>13}{show('answers_right', lambda of: format(of['min'], '.0f')):>15}"
            f"{figures['rounds_right']:>6}/{figures['rounds']}"
        )


def environment(*, quick: bool, rounds: int, pinned: bool) -> dict[str, Any]:
    """Describe the machine and the settings that the figures depend on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "pinned": "contenders on one core, servers on the others" if pinned else "nothing",
        "rounds": rounds,
        "quick": quick,
    }


def _commit() -> str:
    """Return the commit, with a + if files differ from it."""
    done = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _spread(values: Iterable[float]) -> dict[str, float] | None:
    found = sorted(values)
    if not found:
        return None
    return {name: round(value, 4) for name, value in (("min", found[0]), ("median", median(found)), ("max", found[-1]))}
