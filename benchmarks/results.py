"""Everything that was measured, round by round, and the figures that follow from it."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.limit import Limit
from benchmarks.measurement import Measurement
from benchmarks.rows import FLOOR
from benchmarks.workloads import Body


class Point(NamedTuple):
    """One place in the table."""

    workload: str
    server: str
    body: Body
    connections: int


@dataclass(slots=True)
class Results:
    """What was measured; every figure by the number of its round.

    Attributes:
        loads: what each server did under each load.
        limits: workload -> the loop without a server.
        ready_s: server -> from its start to its first answer.
        memory_mib: server -> the most its process tree held after any load.
        beside_broken: good requests beside one client that sends broken images.
        failures: server -> why it has no figures.
    """

    loads: dict[Point, dict[int, Measurement]] = field(default_factory=dict)
    limits: dict[str, dict[int, Limit]] = field(default_factory=dict)
    ready_s: dict[str, dict[int, float]] = field(default_factory=dict)
    memory_mib: dict[str, dict[int, float]] = field(default_factory=dict)
    beside_broken: dict[Point, dict[int, Measurement]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def load(self, point: Point, round_number: int) -> Measurement | None:
        """One measurement, None if it was not made."""
        return self.loads.get(point, {}).get(round_number)

    def rate(self, point: Point, round_number: int) -> float:
        """Good answers per second; NaN if not measured."""
        found = self.load(point, round_number)
        return math.nan if found is None else found.rate

    def latency_s(self, point: Point, percent: float, round_number: int) -> float:
        """A percentile; NaN if not measured."""
        found = self.load(point, round_number)
        return math.nan if found is None else found.percentile_ms(percent) / 1000

    def ideal_rate(self, point: Point, round_number: int) -> float:
        """1 / (in-process time per image at batch 32 + HTTP floor time per request).

        Both of the same round, workload, body and number of connections; NaN if not measured.
        """
        limit = self.limits.get(point.workload, {}).get(round_number)
        floor = self.rate(point._replace(server=FLOOR), round_number)
        if limit is None or not floor > 0:
            return math.nan
        return 1 / (limit.batched_s + 1 / floor)

    def ideal_latency_s(self, point: Point, round_number: int) -> float:
        """In-process time of one image at batch 1 + median latency of the HTTP floor."""
        limit = self.limits.get(point.workload, {}).get(round_number)
        floor_s = self.latency_s(point._replace(server=FLOOR), 50, round_number)
        return math.nan if limit is None else limit.single_s + floor_s
