"""report.html: one page that needs no script, no network and no other file."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import polars as pl

from stages.report import counts, examples, scores
from stages.report.cells import cell, heading, numeric, rows_of, shortened
from stages.report.coverage import not_covered
from stages.report.examples import Example
from stages.report.markup import Markup, element, image, joined
from stages.report.quantiles import quantiles
from stages.report.recall import only_shard, read_json, recall
from stages.report.root import RunRoot
from stages.report.summary import summary

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may do with the page: nothing that a caption could ask for."""

CAPTION, URL, DETAIL = 140, 90, 120  # letters shown


def page(run: RunRoot) -> str:
    title = f"Run {run.root}"
    head = element(
        "head",
        Markup(f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        element("title", title),
        element("style", Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))),
    )
    body = element("body", element("main", element("h1", title), *_sections(run)))
    return Markup("<!doctype html>\n") + element("html", head, body, lang="en") + "\n"


def _sections(run: RunRoot) -> Iterator[Markup]:
    gone = examples.left(run)
    yield _section("The run", summary(run))
    yield _section("From the list to the index", _funnel(run))
    yield _section("What was lost, and why", _table(counts.losses(run)), _by_source(run))
    yield from _scores(run)
    yield from _kept(run)
    yield from _rejected([example for example in gone if example.picture])
    yield from _unseen([example for example in gone if not example.picture])
    yield from _encoder(run)
    yield from _recall(run)
    yield _section("Size and speed", _table(quantiles(run)), _table(counts.work(run)))
    yield _section("What this report does not cover", element("ul", *(element("li", s) for s in not_covered(run))))


def _section(title: str, *content: Markup) -> Markup:
    return element("section", element("h2", title), *content)


def _table(frame: pl.DataFrame) -> Markup:
    """Empty for a frame without rows."""
    if frame.is_empty():
        return Markup()
    flush = ["number" if is_number else "text" for is_number in numeric(frame)]
    head = element("tr", *(element("th", heading(c), class_=side) for c, side in zip(frame.columns, flush, strict=True)))
    body = [
        element("tr", *(element("td", value, class_=side) for value, side in zip(row, flush, strict=True)))
        for row in rows_of(frame)
    ]
    return element("div", element("table", element("thead", head), element("tbody", *body)), class_="wide")


def _funnel(run: RunRoot) -> Markup:
    """A bar a stage, as long as what came through is of what the first stage read."""
    steps = counts.funnel(run)
    reasons = {stage: list(rows) for stage, rows in groupby(counts.losses(run).rows(named=True), lambda r: r["stage"])}
    first = [_bar("listed", steps["rows_in"][0], 1.0, "")] if steps.height else []
    bars = [
        _bar(step["outcome"], step["rows_out"], step["share_of_all"] or 0.0, _lost(step["lost"], reasons[step["stage"]]))
        if step["lost"]
        else _bar(step["outcome"], step["rows_out"], step["share_of_all"] or 0.0, "")
        for step in steps.iter_rows(named=True)
    ]
    return joined(element("div", *first, *bars, class_="funnel"), _table(steps))
