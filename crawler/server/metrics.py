"""What the service counts, as Prometheus reads it (https://prometheus.io/docs/instrumenting/exposition_formats/).

Nothing is done for it while nobody asks, but to count. No metric has a label whose values a stranger can make up.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final, Literal, NamedTuple, get_args

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from crawler.core.tasks import FleetStatus, Status
from crawler.probing.scheduler import Load
from crawler.runtime.counters import Histogram
from crawler.server.middleware.request_metrics import RequestMetrics
from crawler.server.task_manager import TaskManager

__all__ = ["METRICS", "TABLE", "Metrics", "Row"]

Values = Mapping[tuple[str, ...], float]


class Row(NamedTuple):
    """What a metric is: its kind, its labels, and what it means."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


TABLE: Final[Mapping[str, Row]] = {
    "crawler_http_requests_total": Row(
        "counter", ("route", "method", "status"), "Requests answered, by route, method and class of status."
    ),
    "crawler_http_request_duration_seconds": Row(
        "histogram",
        ("route", "method"),
        "Time until an answer begins, less what its client wanted to wait; streams count as begun.",
    ),
    "crawler_tasks": Row("gauge", ("status",), "Tasks that are kept, by status."),
    "crawler_lines_pending": Row("gauge", (), "Lines of running Tasks that have no result yet."),
    "crawler_probes_total": Row("counter", ("outcome",), "Probes that have ended, by outcome."),
    "crawler_probe_errors_total": Row("counter", ("type",), "Probes that found an error, by its type."),
    "crawler_hop_phase_seconds": Row(
        "histogram", ("phase",), "Time of each phase of a hop, where there was one, under HAR's names."
    ),
    "crawler_slots_in_use": Row("gauge", (), "Requests to targets under way."),
    "crawler_slots_limit": Row("gauge", (), "How many there may be: fewer when this machine is at its limits."),
    "crawler_hosts_waiting": Row("gauge", (), "Hosts with work that has not begun."),
    "crawler_hosts_slowed": Row("gauge", (), "Hosts with work that are asked less, because they want it or falter."),
    "crawler_store_call_duration_seconds": Row(
        "histogram", ("kind",), "Time of each read from and write to the store, with the wait for its turn."
    ),
    "crawler_store_failures_total": Row("counter", ("kind",), "Reads and writes that the store could not do."),
    "crawler_event_loop_lag_seconds": Row("histogram", (), "How late the event loop was, looked at twice a second."),
    "crawler_chunks_pending": Row(
        "gauge", ("queue", "state"), "With Redis: chunks of Tasks that wait for a worker, or that one has."
    ),
    "crawler_oldest_chunk_seconds": Row("gauge", ("queue",), "With Redis: time since the oldest of these was queued."),
    "crawler_workers": Row("gauge", (), "With Redis: workers that give signs of life."),
    "crawler_chunks_redelivered_total": Row(
        "counter", (), "With Redis: chunks that were begun again, as a worker had fallen silent."
    ),
}


class Metrics(Collector):
    """The metrics of one application, and of its process.

    Args:
        state: Has what is counted of Tasks and probes.
        traffic: Has what is counted of requests.
    """

    def __init__(self, state: TaskManager, traffic: RequestMetrics) -> None:
        self._state = state
        self._traffic = traffic
        self._load = Load(0, 0, 0, 0)
        self._fleet_status: FleetStatus | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    async def shown(self, accept: str) -> tuple[bytes, str]:
        """All of it, in the format that an Accept header likes best, and the media type of that."""
        self._load = await self._state.load()  # of other processes too, so it has to be waited for
        self._fleet_status = await self._state.engine.fleet_status()
        encode, media_type = choose_encoder("")
        with suppress(TypeError, ValueError):  # there is no such version
            encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def collect(self) -> Iterable[Metric]:
        """All but what is of the process."""
        state, traffic = self._state, self._traffic
        yield _family(
            "crawler_http_requests_total", {(*kind, status): count for (kind, status), count in traffic.answers.items()}
        )
        yield _histogram(
            "crawler_http_request_duration_seconds", {tuple(kind): each for kind, each in traffic.seconds.items()}
        )
        yield from self._tasks()
        yield _family("crawler_probes_total", _by(state.tally.outcomes))
        yield _family("crawler_probe_errors_total", _by(state.tally.errors))
        yield _histogram("crawler_hop_phase_seconds", {(name,): each for name, each in state.tally.phases.items()})
        load = self._load
        yield _family("crawler_slots_in_use", {(): load.active})
        yield _family("crawler_slots_limit", {(): load.limit})
        yield _family("crawler_hosts_waiting", {(): load.waiting})
        yield _family("crawler_hosts_slowed", {(): load.slowed})
        calls = state.registry.calls
        yield _histogram("crawler_store_call_duration_seconds", {(kind,): each for kind, each in calls.seconds.items()})
        yield _family("crawler_store_failures_total", _by(calls.failures))
        yield _histogram("crawler_event_loop_lag_seconds", {(): state.lag.seconds})
        yield from self._queues()

    def _queues(self) -> Iterator[Metric]:
        """What other processes have to do; without samples where there are none."""
        status = self._fleet_status or FleetStatus({}, {}, 0)
        queues, is_known = status.queues, self._fleet_status is not None
        chunks: dict[tuple[str, ...], float] = {}
        for name, each in queues.items():
            chunks |= {(name, "waiting"): each.waiting, (name, "running"): each.running}
        yield _family("crawler_chunks_pending", chunks)
        yield _family("crawler_oldest_chunk_seconds", {(name,): each.oldest for name, each in queues.items()})
        yield _family("crawler_workers", {(): len(status.workers)} if is_known else {})
        yield _family("crawler_chunks_redelivered_total", {(): status.redelivered} if is_known else {})

    def _tasks(self) -> Iterator[Metric]:
        statuses: Counter[str] = Counter(dict.fromkeys(get_args(Status), 0))
        pending = 0
        for task in self._state.registry.tasks.values():
            statuses[task.status] += 1
            if task.status == "running":
                pending += task.total - task.counts.done
        yield _family("crawler_tasks", _by(statuses))
        yield _family("crawler_lines_pending", {(): pending})


METRICS: Final = web.AppKey("METRICS", Metrics)


def _family(name: str, values: Values) -> Metric:
    row = TABLE[name]
    make = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    family = make(name, row.meaning, labels=row.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram(name: str, values: Mapping[tuple[str, ...], Histogram]) -> Metric:
    row = TABLE[name]
    family = HistogramMetricFamily(name, row.meaning, labels=row.labels)
    for labels, each in values.items():
        family.add_metric(labels, each.buckets(), each.sum)
    return family


def _by(counts: Mapping[str, int]) -> Values:
    """By one label."""
    return {(value,): count for value, count in counts.items()}
