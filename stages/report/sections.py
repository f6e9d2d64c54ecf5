"""The sections of the page, one function each. Empty where the run has not come to it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import polars as pl

from pipeline.recipe import Json
from stages.report import counts
from stages.report import samples as of_samples
from stages.report.cells import cell, heading, numeric, rows_of, shortened
from stages.report.examples import Example
from stages.report.markup import Markup, element, image, joined
from stages.report.quantiles import quantiles
from stages.report.recall import STAGE as INDEX_REPORT
from stages.report.recall import only_shard, read_json, recall
from stages.report.root import RunRoot
from stages.report.score_sheets import Sheet
from stages.report.scores import histogram, histogram_picture, meaning, thresholds

CAPTION, URL, DETAIL = 140, 60, 120  # letters shown
UNSEEN_PER_REASON = 2
SHEET = (
    "Every scored pair of the source counts, whatever another rule made of it. Pictures are in the order of scores, "
    "with a red line where the pair left."
)


def funnel(run: RunRoot) -> Markup:
    """A bar a stage: what came through, as a share of what the first stage read."""
    steps, commonest = counts.funnel(run), _commonest(counts.losses(run))
    if steps.is_empty():
        return Markup()
    bars = [_bar("listed", steps["rows_in"][0], 1, "")]
    for step in steps.iter_rows(named=True):
        bars.append(_bar(step["outcome"], step["rows_out"], step["share_of_all"], commonest.get(step["stage"], "")))
    return joined(element("div", *bars, class_="funnel"), table(steps))


def _commonest(lost: pl.DataFrame) -> Mapping[str, str]:
    """Stage → its three commonest reasons, in words."""
    reasons = lost.group_by("stage", maintain_order=True).head(3)
    by_stage = groupby(reasons.iter_rows(named=True), key=lambda row: row["stage"])
    return {stage: ", ".join(f"{row['reason']} {row['rows']:,}" for row in rows) for stage, rows in by_stage}


def _bar(name: str, rows: int, share: float | None, lost: str) -> Markup:
    bar = element("span", "", class_="bar", style=f"width:{100 * (share or 0):.2f}%")
    told = element("span", f"{rows:,} · {cell('share', share)}", class_="figure")
    return joined(element("b", name), element("span", bar, class_="track"), told, element("small", lost))


def losses(run: RunRoot) -> Markup:
    return element("div", table(counts.losses(run)), table(counts.sources(run)), class_="side")


def scores(run: RunRoot) -> Markup:
    counted = histogram(run)
    if counted.is_empty():
        return Markup()
    limits = thresholds(run)
    picture = image(histogram_picture(counted, limits), "png", "Histogram of clip_score")
    return joined(element("p", meaning(limits)), element("figure", picture))


def score_sheet(sheet: Sheet, strips: Sequence[tuple[str, Sequence[Example]]]) -> Markup:
    """A line under each picture says whether its pair was kept."""
    rows = [
        joined(element("h3", title), element("div", *map(_marked, found), class_="cards")) for title, found in strips
    ]
    return joined(element("p", SHEET), table(sheet.table()), *rows)


def _marked(example: Example) -> Markup:
    return _card(example, class_="gone" if example.reason else "in")


def kept(found: Sequence[Example]) -> Markup:
    return element("div", *map(_card, found), class_="cards") if found else Markup()


def rejected(found: Sequence[Example]) -> Markup:
    reasons = groupby(found, key=lambda example: example.reason)
    return joined(*(joined(element("h3", reason), kept(list(group))) for reason, group in reasons))


def _card(example: Example, **attributes: str) -> Markup:
    assert example.picture is not None, "only pairs with a picture are shown"
    caption = shortened(example.caption or "", CAPTION)
    score = "" if example.clip_score is None else f"clip_score {example.clip_score:.3f}"
    lines = [element("small", line) for line in (score, shortened(example.detail, DETAIL), example.pair_id) if line]
    told = element("figcaption", element("p", caption, dir="auto"), *lines)
    return element("figure", image(example.picture, "jpeg", caption), told, **attributes)


def unseen(found: Sequence[Example]) -> Markup:
    reasons = groupby(found, key=lambda example: (example.stage, example.reason))
    shown = [example for _, group in reasons for example in list(group)[:UNSEEN_PER_REASON]]
    rows = [(e.stage, e.reason, e.pair_id, shortened(e.url or "", URL), shortened(e.detail, DETAIL)) for e in shown]
    return table(pl.DataFrame(rows, schema=["stage", "reason", "pair", "url", "detail"], orient="row"))


def encoder(run: RunRoot) -> Markup:
    shard = only_shard(run, "encoder")
    if shard is None:
        return Markup()
    rows = sorted(_figures(read_json(shard, "report")), key=lambda row: _natural(row[0]))
    return table(pl.DataFrame(rows, schema={"figure": pl.String, "value": pl.Float64}, orient="row"))


def _figures(report: Mapping[str, Json], where: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a report, and what it is called; series are left out."""
    for name, value in report.items():
        if isinstance(value, dict):
            yield from _figures(value, f"{where}{heading(name)} ")
        elif isinstance(value, int | float):
            yield where + heading(name), float(value)


def _natural(text: str) -> list[int | str]:
    """A sorting key by which 5 comes before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def index(run: RunRoot) -> Markup:
    shard = only_shard(run, INDEX_REPORT)
    if shard is None:
        return Markup()
    chosen = read_json(shard, "tuned")
    told = (
        f"{chosen['factory']} over {chosen['rows']:,} pairs. Of the {chosen['nlist']:,} lists nprobe are "
        "searched, and the first found (depth) are re-ranked by their stored vectors, as tuned for each kind of query. "
        "Recall is that of held-out queries against exact search, with its 95 % interval; coverage is the share of "
        "exact neighbours in the probed lists."
    )
    plot = image(shard.path("plot").read_bytes(), "png", "Recall against modelled cost")
    return joined(element("p", told), table(recall(run)), element("figure", plot))


def samples(run: RunRoot) -> Markup:
    made = of_samples.plots(run)
    figures = (element("figure", image(shard.path(name).read_bytes(), "png", told)) for told, shard, name in made)
    return joined(table(of_samples.band(run)), table(of_samples.figures(run)), *figures, table(of_samples.hubs(run)))


def size_and_speed(run: RunRoot) -> Markup:
    return joined(table(quantiles(run)), table(counts.work(run)))


def table(frame: pl.DataFrame) -> Markup:
    """Nothing for a frame without rows."""
    if frame.is_empty():
        return Markup()
    sides = ["number" if is_number else "text" for is_number in numeric(frame)]
    head = _row("th", [heading(column) for column in frame.columns], sides)
    body = element("tbody", *(_row("td", row, sides) for row in rows_of(frame)))
    return element("div", element("table", element("thead", head), body), class_="wide")


def _row(kind: str, cells: Sequence[str], sides: Sequence[str]) -> Markup:
    return element("tr", *(element(kind, text, class_=side) for text, side in zip(cells, sides, strict=True)))
