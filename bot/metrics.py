"""What is counted and measured, in a registry of its own, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric now: `values` by label value, or by "" where it has no label."""

    name: str
    help: str
    values: Mapping[str, float]
    label: str | None = None
    kind: Literal["counter", "gauge"] = field(default="gauge")


Source: TypeAlias = Callable[[], Iterable[Reading]]
"""Reads what somebody else counts already; called at every scrape, must not block."""


class Metrics:
    """All metrics of the process. The parts count for themselves; here they are only read."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._sources: list[Source] = []
        self._registry.register(self)

    def add(self, source: Source) -> None:
        """Have a source read at every scrape."""
        self._sources.append(source)

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client: every reading as one of its families."""
        for source in self._sources:
            for reading in source():
                family = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
                labels = [] if reading.label is None else [reading.label]
                metric = family(reading.name, reading.help, labels=labels)
                for value_of_label, value in reading.values.items():
                    metric.add_metric([value_of_label] if labels else [], value)
                yield metric

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
