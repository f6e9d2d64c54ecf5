"""report.html: one page that needs no script, no network and no other file."""

from collections.abc import Iterator
from pathlib import Path

from stages.report import examples
from stages.report.coverage import not_covered
from stages.report.evaluation import evaluation_sets
from stages.report.markup import Markup, element
from stages.report.root import RunRoot
from stages.report.score_sheets import sheets
from stages.report.sections import (
    encoder,
    funnel,
    index,
    kept,
    losses,
    rejected,
    samples,
    score_sheet,
    scores,
    size_and_speed,
    table,
    unseen,
)
from stages.report.summary import summary

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may do with the page: nothing that a caption could ask for."""


def page(run: RunRoot) -> str:
    title = f"Run {run.root}"
    head = element(
        "head",
        Markup(f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        element("title", title),
        element("style", Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))),
    )
    sections = (element("section", element("h2", name), shown) for name, shown in _sections(run) if shown)
    body = element("body", element("main", element("h1", title), *sections))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _sections(run: RunRoot) -> Iterator[tuple[str, Markup]]:
    """Title and content; a section without content is left out."""
    gone = examples.left(run)
    yield "The run", summary(run)
    yield "From the list to the index", funnel(run)
    yield "What was lost, and why", losses(run)
    yield "Pairs that show a picture of an evaluation set", table(evaluation_sets(run))
    yield "How well captions fit their pictures", scores(run)
    for sheet, strips in sheets(run):
        yield f"What a threshold would keep of {sheet.source}", score_sheet(sheet, strips)
    yield "Some of the pairs that were kept", kept(examples.kept(run))
    yield "Some of the pictures that were not", rejected([example for example in gone if example.picture])
    yield "Some of the rows that never became a picture", unseen([e for e in gone if not e.picture])
    yield "The encoder that this run trained, on scenes it has not seen", encoder(run)
    yield "What the index finds", index(run)
    yield "Every pair with its supports: the band, and the samples", samples(run)
    yield "Size and speed", size_and_speed(run)
    yield "What this report does not cover", element("ul", *(element("li", line) for line in not_covered(run)))
