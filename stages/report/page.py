"""report.html: one page that needs no script, no network and no other file."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import groupby

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
        element("style", Markup(files("stages.report").joinpath("page.css").read_text(encoding="utf-8"))),
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
