"""The metrics of the service, in the text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/).

Values are computed for each request. No metric has a label whose values a client can make up.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final, Literal, NamedTuple, Protocol, get_args

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
from crawler.probing.scheduling.scheduler import Load
from crawler.registry import Registry
from crawler.runtime.counters import Histogram, ProbeCounters
from crawler.runtime.log_writer import dropped_lines
from crawler.runtime.loop_lag import LoopLag
from crawler.server.request_counters import RequestCounters

__all__ = ["TABLE", "Metrics", "Row"]

Values = Mapping[tuple[str, ...], float]


class Row(NamedTuple):
    """The kind, the labels and the description of a metric."""

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
        "Time until the response begins, without the time that a client asked to wait.",
    ),
    "crawler_tasks": Row("gauge", ("status",), "Tasks in the store, by status."),
    "crawler_lines_pending": Row("gauge", (), "Lines of running Tasks that have no result yet."),
    "crawler_probes_total": Row("counter", ("outcome",), "Probes that have ended, by outcome."),
    "crawler_probe_errors_total": Row("counter", ("type",), "Probes that found an error, by its type."),
    "crawler_probes_tls_total": Row(
        "counter",
        ("engine",),
        "Probes that have ended with a TLS connection, by its library: rustls, or openssl for what rustls refused.",
    ),
    "crawler_hop_phase_seconds": Row(
        "histogram", ("phase",), "Time of each phase of a hop, where there was one, under HAR's names."
    ),
    "crawler_slots_in_use": Row("gauge", (), "Requests to targets in flight."),
    "crawler_slots_limit": Row("gauge", (), "The most of these at once: fewer while this machine lacks resources."),
    "crawler_hosts_waiting": Row("gauge", (), "Hosts with targets that wait for a slot."),
    "crawler_hosts_slowed": Row(
        "gauge", (), "Hosts with targets that get fewer requests, because they asked for it or fail."
    ),
    "crawler_store_call_duration_seconds": Row(
        "histogram", ("kind",), "Time of each read from and write to the store, with the time it waits for others."
    ),
    "crawler_store_failures_total": Row("counter", ("kind",), "Reads and writes that failed."),
    "crawler_store_room_bytes": Row(
        "gauge",
        (),
        "With SQLite: bytes of the disk that new Tasks may take; at 0, submits are refused. Otherwise +Inf.",
    ),
    "crawler_event_loop_lag_seconds": Row("histogram", (), "How late the event loop was, measured twice a second."),
    "crawler_missed_seconds_total": Row(
        "counter", (), "Time in which the service stood still: stopped, without CPU, or its machine suspended."
    ),
    "crawler_children_replaced_total": Row(
        "counter", (), "With `--processes`: child processes that did not answer and were replaced."
    ),
    "crawler_places_in_use": Row("gauge", ("resource",), "Places of a bounded resource that are taken."),
    "crawler_places_limit": Row("gauge", ("resource",), "How many there are."),
    "crawler_places_refused_total": Row("counter", ("resource",), "Clients that got none, or were replaced."),
    "crawler_log_lines_dropped_total": Row(
        "counter", (), "Log lines that were dropped, because standard error was not read in time."
    ),
    "crawler_chunks_pending": Row(
        "gauge", ("queue", "state"), "With Redis: chunks of Tasks that wait for a worker process, or that one probes."
    ),
    "crawler_oldest_chunk_seconds": Row("gauge", ("queue",), "With Redis: seconds since the oldest chunk was queued."),
    "crawler_workers": Row("gauge", (), "With Redis: worker processes that send heartbeats."),
    "crawler_chunks_redelivered_total": Row(
        "counter", (), "With Redis: chunks that were started again after a worker process fell silent."
    ),
}


class Bounded(Protocol):
    """A resource with a limited number of places."""

    @property
    def in_use(self) -> int:
        """How many places are taken."""

    @property
    def limit(self) -> int:
        """How many there are."""

    @property
    def refused(self) -> int:
        """How many clients got none."""


class Metrics(Collector):
    """The metrics of one application, and of its process.

    Args:
        registry: Has the Tasks, and counts the calls of the store.
        requests: Counts requests.
        probes: Counts the results of probes.
        lag: Measures the event loop.
        load: Returns how busy the prober is, over all child processes.
        fleet_status: Returns the queues and worker processes; None without a fleet, or if Redis does not answer.

    Attributes:
        bounded: The bounded resources, by name.
    """

    def __init__(
        self,
        registry: Registry,
        requests: RequestCounters,
        probes: ProbeCounters,
        lag: LoopLag,
        *,
        load: Callable[[], Awaitable[Load]],
        fleet_status: Callable[[], Awaitable[FleetStatus | None]],
    ) -> None:
        self.bounded: dict[str, Bounded] = {}
        self._registry = registry
        self._requests = requests
        self._probes = probes
        self._lag = lag
        self._load = load
        self._fleet_status = fleet_status
        # These come from other processes, so they are awaited before the rest is collected.
        self._latest_load = Load(0, 0, 0, 0)
        self._latest_status: FleetStatus | None = None
        self._latest_room = 0.0
        self._collectors = CollectorRegistry()
        self._collectors.register(self)
        ProcessCollector(registry=self._collectors)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics, in the format that an Accept header prefers, and the media type of that format."""
        self._latest_load = await self._load()
        self._latest_status = await self._fleet_status()
        self._latest_room = await self._registry.room_bytes()
        encode, media_type = choose_encoder("")
        with suppress(TypeError, ValueError):  # the header asks for a version that does not exist
            encode, media_type = choose_encoder(accept)
        return encode(self._collectors), media_type

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics except those of the process."""
        requests, probes, load, calls = self._requests, self._probes, self._latest_load, self._registry.calls
        yield _family(
            "crawler_http_requests_total",
            {(*kind, status): count for (kind, status), count in requests.responses.items()},
        )
        yield _histogram(
            "crawler_http_request_duration_seconds", {tuple(kind): each for kind, each in requests.seconds.items()}
        )
        yield from self._tasks()
        yield _family("crawler_probes_total", _by_label(probes.outcomes))
        yield _family("crawler_probe_errors_total", _by_label(probes.errors))
        yield _family("crawler_probes_tls_total", _by_label(probes.engines))
        yield _histogram("crawler_hop_phase_seconds", {(name,): each for name, each in probes.phases.items()})
        yield _family("crawler_slots_in_use", {(): load.active})
        yield _family("crawler_slots_limit", {(): load.limit})
        yield _family("crawler_hosts_waiting", {(): load.waiting})
        yield _family("crawler_hosts_slowed", {(): load.slowed})
        yield _histogram("crawler_store_call_duration_seconds", {(kind,): each for kind, each in calls.seconds.items()})
        yield _family("crawler_store_failures_total", _by_label(calls.failures))
        yield _family("crawler_store_room_bytes", {(): self._latest_room})
        yield _histogram("crawler_event_loop_lag_seconds", {(): self._lag.seconds})
        yield _family("crawler_missed_seconds_total", {(): load.missed_seconds})
        yield _family("crawler_children_replaced_total", {(): load.replaced_children})
        bounded = self.bounded.items()
        yield _family("crawler_places_in_use", {(name,): each.in_use for name, each in bounded})
        yield _family("crawler_places_limit", {(name,): each.limit for name, each in bounded})
        yield _family("crawler_places_refused_total", {(name,): each.refused for name, each in bounded})
        yield _family("crawler_log_lines_dropped_total", {(): dropped_lines()})
        yield from self._queues()

    def _queues(self) -> Iterator[Metric]:
        """Yield the work queues on Redis; without samples if there is no Redis, or it does not answer."""
        status = self._latest_status or FleetStatus({}, {}, 0)
        queues, is_known = status.queues, self._latest_status is not None
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
        for task in self._registry.tasks.values():
            statuses[task.status] += 1
            if task.status == "running":
                pending += task.total - task.counts.done
        yield _family("crawler_tasks", _by_label(statuses))
        yield _family("crawler_lines_pending", {(): pending})


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


def _by_label(counts: Mapping[str, int]) -> Values:
    return {(value,): count for value, count in counts.items()}
