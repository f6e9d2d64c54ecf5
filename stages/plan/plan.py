"""The plan of a job: what is left of it and in all, how long a cluster takes for that, and what it costs.

Time    Stages that go on shard by shard overlap, and together they take as long as the scarcest of these: the CPUs and
        GPUs that their workers hold, the workers themselves where the recipe limits them, the network, and the host
        with the most urls. Every other stage waits for the one before it. Nothing is reckoned for workers that start,
        wait or die.
Host    A host with n urls takes n · plan.fetch_s / download.connections_per_host seconds, if no more connections than
        that are open to it, from all shards together.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.errors import RecipeError
from stages.plan.figures import Figure, largest, measured, stated, total
from stages.plan.job import Job
from stages.plan.lines import BY_SOURCE, Found, Left, Line
from stages.plan.records import Done

GBIT_BYTES, KB, TB = 125e6, 1000, 1e12


@dataclass(frozen=True)
class StageTotal:
    """A line of the plan: a stage, all its sources together."""

    stage: str
    done: Done
    left: Left
    cpu_hours: Figure
    gpu_hours: Figure
    hours: Figure  # if it had the cluster to itself
    cost: Figure  # of the CPUs and GPUs while they are held


@dataclass(frozen=True)
class Way:
    """A whole root, from nothing: with the prefilter, or without."""

    name: str
    urls: Figure
    pairs: Figure  # of the corpus
    bytes: Figure
    files: Figure
    cpu_hours: Figure
    gpu_hours: Figure
    hours: Figure
    cost: Figure


@dataclass(frozen=True)
class Plan:
    found: Found

    @property
    def job(self) -> Job:
        return self.found.job

    @cached_property
    def stages(self) -> list[StageTotal]:
        names = dict.fromkeys(line.stage for line in self.found.lines)
        return [self._total([line for line in self.found.lines if line.stage == name]) for name in names]

    @cached_property
    def bounds(self) -> dict[str, Figure]:
        """Hours that the stages that go on shard by shard take by each of the things that may be scarce."""
        chained = [line for line in self.found.lines if line.stage in BY_SOURCE]
        plan = self.job.plan
        bounds = {"CPUs": total(line.cpu_hours for line in chained) / self.cpus}
        if plan.gpus:
            bounds["GPUs"] = total(line.gpu_hours for line in chained) / plan.gpus
        for stage in self.job.stages:
            if stage.name in BY_SOURCE and stage.resources.workers:
                held = total(line.left.seconds for line in chained if line.stage == stage.name)
                bounds[f"{stage.name}.workers"] = held / (3600 * stage.resources.workers)
        bounds["network"] = self.fetched_bytes / (plan.network_gbit * GBIT_BYTES * 3600)
        hosts = [self._host_hours(line) for line in chained if line.stage == "download"]
        return bounds | ({"largest host": largest(known)} if (known := [hours for hours in hosts if hours]) else {})

    @property
    def hours(self) -> Figure:
        """The chained stages' and, one after the other, all others'."""
        others = [stage.hours for stage in self.stages if stage.stage not in BY_SOURCE]
        return largest(self.bounds.values()) + total(others)

    @property
    def bytes(self) -> Figure:
        return total(stage.left.bytes for stage in self.stages)

    @property
    def cost(self) -> Figure:
        """Of the hours that are held, and of what is fetched."""
        return total(stage.cost for stage in self.stages) + self.fetched_bytes * (self.job.plan.prices.fetched_tb / TB)

    @property
    def rent(self) -> Figure:
        """Of the cluster as a whole, for as long as it takes."""
        prices, plan = self.job.plan.prices, self.job.plan
        return self.hours * stated(self.cpus * prices.cpu_hour + plan.gpus * prices.gpu_hour, "plan.prices")

    @property
    def storage_month(self) -> Figure:
        """Of the finished root."""
        done = sum(stage.done.bytes + stage.done.record_bytes for stage in self.stages)
        return (self.bytes + done) * stated(self.job.plan.prices.storage_tb_month / TB, "plan.prices")

    @cached_property
    def fetched_bytes(self) -> Figure:
        """Of the urls that are left."""
        lines = [line for line in self.found.lines if line.stage == "download"]
        return total(line.left.rows_out * self._picture_bytes(line) for line in lines)

    @property
    def cpus(self) -> int:
        return self.job.plan.cpus or os.cpu_count() or 1

    @cached_property
    def ways(self) -> list[Way]:
        """From nothing: with and without the prefilter; one, where the recipe has none."""
        both = any(self.found.passed(source).value < 1 for source in self.found.rows)
        ways = [self._way("as the recipe says", Plan(self.found.afresh(prefilter=True)))]
        return [*ways, self._way("without its prefilter", Plan(self.found.afresh(prefilter=False)))] if both else ways

    def _way(self, name: str, plan: "Plan") -> Way:
        lines = plan.found.lines
        return Way(
            name=name,
            urls=total(line.left.rows_in for line in lines if line.stage == "download"),
            pairs=total(line.left.rows_out for line in lines if line.stage == "corpus"),
            bytes=plan.bytes,
            files=total(line.left.files for line in lines),
            cpu_hours=total(line.cpu_hours for line in lines),
            gpu_hours=total(line.gpu_hours for line in lines),
            hours=plan.hours,
            cost=plan.cost,
        )

    def _total(self, lines: Sequence[Line]) -> StageTotal:
        cpu_hours, gpu_hours = total(line.cpu_hours for line in lines), total(line.gpu_hours for line in lines)
        prices = self.job.plan.prices
        left = Left(*(total(getattr(line.left, name) for line in lines) for name in Left.__dataclass_fields__))
        return StageTotal(
            stage=lines[0].stage,
            done=sum((line.done for line in lines), Done()),
            left=left,
            cpu_hours=cpu_hours,
            gpu_hours=gpu_hours,
            hours=left.seconds / 3600 / max(1, self._at_once(lines[0], left.shards.value)),
            cost=cpu_hours * stated(prices.cpu_hour, "") + gpu_hours * stated(prices.gpu_hour, ""),
        )

    def _at_once(self, line: Line, shards: float) -> float:
        """Workers of a stage that has the cluster to itself."""
        by_cpu = self.cpus // line.cpus if line.cpus else shards
        return min(shards, by_cpu, self.job.plan.gpus // line.gpus if line.gpus else shards)

    def _host_hours(self, line: Line) -> Figure | None:
        """None where the source's hosts are not known."""
        host = self.found.rows[line.source].largest_host
        if host is None:
            return None
        at_once = self.job.download.connections_per_host
        return line.left.rows_in * host * stated(self.job.plan.fetch_s / at_once / 3600, "plan.fetch_s")

    @property
    def warnings(self) -> list[str]:
        """What of the recipe would lose rows."""
        return [told for name in self.found.rows if (told := self._host_too_slow(name))]

    def _host_too_slow(self, source: str) -> str:
        """A shard is told its share of a host's connections, whether the other shards need theirs or not."""
        host, download = self.found.rows[source].largest_host, self.job.download
        if host is None or self.job.ingest is None:
            return ""
        rows = host.value * min(self.job.ingest.shard_size, self.found.rows[source].rows.value)
        at_once = download.workers or self.cpus
        takes_s = rows * self.job.plan.fetch_s * at_once / download.connections_per_host
        if takes_s <= download.shard_deadline_s:
            return ""
        return (
            f"{rows:,.0f} rows of a shard of {source} are at its largest host and take {takes_s / 3600:.0f} h with the "
            f"share of one of {at_once:,} shards at once; download.shard_deadline_s ends the shard after "
            f"{download.shard_deadline_s / 3600:.0f} h, and what is left becomes rejects (deadline). Set "
            f"download.workers to at most {at_once * download.shard_deadline_s / takes_s:,.0f}, or a longer deadline"
        )

    def _picture_bytes(self, line: Line) -> Figure:
        seen = self.found.seen["download"].by_source.get(line.source) or self.found.seen["download"].all
        if seen.fetched_bytes and seen.rows_out:
            return measured(seen.fetched_bytes / seen.rows_out, f"{seen.shards:,} committed shards")
        return stated(self.job.plan.fetched_kb * KB, "plan.fetched_kb")


def plan_of(job: Job) -> Plan:
    """Raises RecipeError where a list is not what its preset says, cannot be counted, or no GPU is there for a stage
    that asks for one; InputError where a record of the root cannot be read."""
    asking = [stage.name for stage in job.stages if stage.resources.gpus]
    if asking and not job.plan.gpus:
        raise RecipeError(f"{asking[0]} asks for a GPU, and plan.gpus is 0: set it, or {asking[0]}'s device to cpu")
    return Plan(Found.of(job))
