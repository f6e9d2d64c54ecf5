"""What a rehearsal showed, as numbers for a program and as a table for a person."""

from collections.abc import Iterator, Mapping

from trials.faulty_store import LATENCY_S
from trials.rehearsal.audit import Audit
from trials.rehearsal.measures import calls_made, calls_of_a_shard, listing
from trials.rehearsal.stages import ROWS
from trials.rehearsal.supervisor import Observed, Rehearsal

Figures = Mapping[str, float]


def figures(given: Rehearsal, seen: Observed, audited: Audit) -> Figures:
    """Names end in their unit; a count has none."""
    workers, driver = calls_made(given, seen)
    needed = calls_of_a_shard() if given.faulty else 0.0
    listing_s, listing_injected_s = listing(given)
    last = seen.drivers[-1].state
    return {
        "shards": given.shards,
        "seed": given.seed,
        "wall_s": seen.wall_s,
        "shards_at_a_time": given.at_a_time,
        "calls_of_a_quiet_shard": needed,
        "latency_bound_s": needed * given.shards * LATENCY_S / given.at_a_time,
        "worker_calls": workers.calls,
        "driver_calls": driver.calls,
        "driver_peak_bytes": max(d.usage.peak_bytes for d in seen.drivers),
        "driver_cpu_s": sum(d.usage.cpu_s for d in seen.drivers),
        "listing_s": listing_s,
        "listing_injected_s": listing_injected_s,
        "resume_s": last.first_shard_s,
        "resume_join_s": last.join_s,
        "resume_frame_s": last.frame_s,
        "drivers_killed": sum(d.killed for d in seen.drivers),
        "workers_killed": seen.workers_killed,
        "nodes_lost": seen.nodes_lost,
        "errors_before_effect": workers.refused + driver.refused,
        "errors_after_effect": workers.lost + driver.lost,
        "deaths": sum(d.state.deaths for d in seen.drivers),
        "raised": sum(d.state.raised for d in seen.drivers),
        "rows": audited.rows,
        "kept": audited.kept,
        "rejected": audited.rejected,
        "files_read": audited.files,
        "faults": len(audited.faults),
    }


def table(found: Figures) -> str:
    rows = [f"| {what} | {figure} |" for what, figure in _lines(found)]
    return "\n".join([f"| rehearsal of {found['shards']:,} shards of {ROWS} rows | |", "| --- | --- |", *rows])


def _lines(found: Figures) -> Iterator[tuple[str, str]]:
    shards, wall_s, bound_s = found["shards"], found["wall_s"], found["latency_bound_s"]
    yield "wall", f"{wall_s / 60:.1f} min, {1000 * wall_s / shards:.1f} ms a shard"
    if bound_s:
        calls, at_a_time = found["calls_of_a_quiet_shard"], found["shards_at_a_time"]
        bound = f"{calls:.1f} calls of an undisturbed shard, {at_a_time} shards at a time"
        yield f"bound of the store's latency: {bound}", f"{1000 * bound_s / shards:.1f} ms a shard"
        yield "overhead: ratio to the bound", f"{wall_s / bound_s:.2f}"
        yield (
            "calls made a shard, totals and repetitions too: by workers, by drivers",
            " · ".join(f"{found[name] / shards:.1f}" for name in ("worker_calls", "driver_calls")),
        )
    yield "driver: peak memory", f"{found['driver_peak_bytes'] / 2**20:,.0f} MiB"
    yield "driver: CPU", f"{1000 * found['driver_cpu_s'] / shards:.2f} ms a shard"
    yield (
        "listing the committed shards of a stage: all, of that injected latency",
        f"{found['listing_s']:.2f} s · {found['listing_injected_s']:.2f} s",
    )
    yield (
        "start of the last driver: to its first shard, of that joining Ray, the frame's own",
        " · ".join(f"{found[name]:.2f} s" for name in ("resume_s", "resume_join_s", "resume_frame_s")),
    )
    yield (
        "killed: workers, nodes, drivers",
        " · ".join(f"{found[name]:.0f}" for name in ("workers_killed", "nodes_lost", "drivers_killed")),
    )
    yield (
        "errors injected: before the effect, after it",
        " · ".join(f"{found[name]:,.0f}" for name in ("errors_before_effect", "errors_after_effect")),
    )
    yield (
        "seen by the driver: shards whose process died, shards that raised",
        " · ".join(f"{found[name]:,.0f}" for name in ("deaths", "raised")),
    )
    yield "rows kept + rejected = all", f"{found['kept']:,} + {found['rejected']:,} = {found['rows']:,}"
    yield (
        f"audit of {found['files_read']:,} files against an undisturbed computation",
        f"{found['faults']:,} faults" if found["faults"] else "every row in its place, identities equal",
    )
