"""A plan as tables: for a terminal every figure with a mark for how it is known, for programs as it is."""

from collections.abc import Mapping, Sequence

from pipeline.recipe import Json
from stages.plan.figures import Basis, Figure, total
from stages.plan.lines import BY_SOURCE
from stages.plan.plan import Plan, StageTotal, Way

Cell = Figure | str
Row = Mapping[str, Cell]
Table = Sequence[Row]
MARKS = {Basis.COUNTED: "", Basis.MEASURED: " ~", Basis.STATED: " ?"}
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))


def tables(plan: Plan) -> dict[str, Table]:
    """By title."""
    return {
        "sources": _sources(plan),
        "still to make": _stages(plan),
        "time": _time(plan),
        "money": _money(plan),
        "from nothing": [_way(way) for way in plan.ways],
        "rates": _rates(plan),
    }


def written(column: str, cell: Cell) -> str:
    """Bytes in their unit, shares in per cent, money and hours to three digits, everything else whole."""
    if isinstance(cell, str):
        return cell
    value, mark = cell.value, MARKS[cell.basis]
    if column == "bytes" or column.startswith("bytes "):
        return in_units(value) + mark
    if column.startswith("share") or column == "largest host":
        return f"{value:.1%}{mark}"
    if column in ("hours", "cost", "rate") or column.endswith("hours"):
        return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + mark
    return f"{value:,.0f}{mark}"


def as_json(cell: Cell) -> Json:
    return cell if isinstance(cell, str) else {"value": cell.value, "known": cell.basis.name.lower()}


def in_units(value: float) -> str:
    """Bytes."""
    size, unit = next(((size, unit) for size, unit in UNITS if value >= size), UNITS[-1])
    return f"{value / size:.3g} {unit}"


def _sources(plan: Plan) -> Table:
    """passed: the share that the prefilter lets pass."""
    found = plan.found
    return [
        {
            "source": source or "all",
            "rows": rows.rows,
            "shards": rows.shards,
            "share passed": found.passed(source),
            "largest host": rows.largest_host or "not known",
            "list": "here" if rows.lists.basis == Basis.COUNTED else "not on this machine",
        }
        for source, rows in found.rows.items()
    ]


def _stages(plan: Plan) -> Table:
    """done: shards that are committed."""
    rows = {stage.stage: _figures(stage) for stage in plan.stages}
    sums = {name: total(row[name] for row in rows.values()) for name in SUMMED}
    unsummed = dict.fromkeys(("done", "shards", "rows in", "rows out"), "")
    lines: list[Row] = [{"stage": stage, **row} for stage, row in rows.items()]
    return [*lines, {"stage": "all", **unsummed, **sums}]


def _figures(stage: StageTotal) -> dict[str, Figure]:
    return {
        "done": Figure(stage.done.shards),
        "shards": stage.left.shards,
        "rows in": stage.left.rows_in,
        "rows out": stage.left.rows_out,
        "bytes": stage.left.bytes,
        "files": stage.left.files,
        "CPU hours": stage.cpu_hours,
        "GPU hours": stage.gpu_hours,
        "cost": stage.cost,
    }


SUMMED = ("bytes", "files", "CPU hours", "GPU hours", "cost")


def _time(plan: Plan) -> Table:
    hours: dict[str, Cell] = {f"crawl to filter, by {name}": hours for name, hours in plan.bounds.items()}
    hours.setdefault("crawl to filter, by largest host", "not known")
    hours |= {stage.stage: stage.hours for stage in plan.stages if stage.stage not in BY_SOURCE}
    return [{"what": what, "hours": cell} for what, cell in (hours | {"all": plan.hours}).items()]


def _money(plan: Plan) -> Table:
    return [
        {"what": "CPUs and GPUs while they are held, and what is fetched", "cost": plan.cost},
        {"what": "the whole cluster, as long as it takes", "cost": plan.rent},
        {"what": "storage of the finished root, a month", "cost": plan.storage_month},
    ]


def _way(way: Way) -> Row:
    return {
        "way": way.name,
        "urls": way.urls,
        "pairs": way.pairs,
        "bytes": way.bytes,
        "files": way.files,
        "CPU hours": way.cpu_hours,
        "GPU hours": way.gpu_hours,
        "hours": way.hours,
        "cost": way.cost,
    }


def _rates(plan: Plan) -> Table:
    """What the plan rests on, of the stages that are not whole; sources with the same rate in one row."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for line in plan.found.lines:
        for name in SHOWN if line.left.shards.value else ():
            figure: Figure = getattr(line.rates, name)
            if figure.value and (name, figure.value) != ("survival", 1):
                key = (line.stage, name, f"{figure.value:.3g}{MARKS[figure.basis]}", figure.origin)
                found.setdefault(key, []).append(line.source or "all")
    return [
        {"stage": stage, "source": ", ".join(sources), "rate": SHOWN[name], "value": value, "from": origin}
        for (stage, name, value, origin), sources in found.items()
    ]


SHOWN = {
    "survival": "rows out a row in",
    "seconds": "worker's seconds a row",
    "shard_seconds": "worker's seconds a shard",
    "bytes": "bytes a row out",
}
