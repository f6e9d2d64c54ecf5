"""Answers to some questions under every condition, as one HTML page that needs no script and no other file.

Reads   evaluation_answers, evaluation_scores; corpus: the set's, for the pictures
Writes  page
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from random import Random
from typing import Any

import polars as pl
from PIL import Image

from model.evaluation.answers import EvaluationAnswers
from model.evaluation.recipe import EvaluationRecipe
from model.evaluation.scores import CELL, EvaluationScores
from model.evaluation.table import notes, scores_table
from model.training.captions_page import POLICY, STYLE, picture_tag
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Resources, Stage
from pipeline.storage import absolute_root
from pipeline.writer import ShardWriter, Task
from stages.filter import Corpus, CorpusReader

SHOWN = 24  # questions
LAYOUT = """
td { overflow-wrap: normal; } .figures td, .figures th { text-align: right; white-space: nowrap; padding-right: 12px; }
.asked { display: flex; gap: 24px; margin: 32px 0 12px; } .asked img { width: auto; align-self: flex-start; }
"""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class EvaluationPage(Stage[None]):
    recipe: EvaluationRecipe
    name, version = "evaluation_page", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [
            Input(EvaluationAnswers.name, Need.WHOLE),
            Input(EvaluationScores.name, Need.WHOLE),
            Input(Corpus.name, Need.WHOLE, absolute_root(self.recipe.pictures), "pictures"),
        ]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=2)

    def settings(self) -> Mapping[str, Json]:
        return {"seed": self.recipe.seed}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        answers = pl.DataFrame(task.whole(EvaluationAnswers.name).tables("answers"))
        scores = pl.DataFrame(task.whole(EvaluationScores.name).tables("scores"))
        questions = answers["question"].unique().sort().to_list()
        drawn = sorted(Random(self.recipe.seed).sample(questions, min(SHOWN, len(questions))))
        corpus = CorpusReader(self.recipe.pictures)
        sections = [_section(answers.filter(question=question).sort(CELL).to_dicts(), corpus) for question in drawn]
        title = f"{len(drawn)} of {len(questions):,} questions, drawn by chance"
        page = "\n".join([*_head(title), _figures(scores), *(f"<p>{escape(n)}</p>" for n in notes(scores)), *sections])
        out.file("page", "page_{stem}.html").write_text(f"{page}\n</body></html>\n", encoding="utf-8")
        return Counts(len(questions), len(questions))


def _head(title: str) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield f"<title>{title}</title><style>{STYLE}{LAYOUT}</style></head>\n<body><h1>Evaluation</h1>\n<p>{title}.</p>"


def _figures(scores: pl.DataFrame) -> str:
    table = scores_table(scores).select(pl.all().cast(pl.String).fill_null(""))
    shown = [column for column in table if (column != "").any()]
    head = "".join(f"<th>{escape(column.name.replace('_', ' '))}</th>" for column in shown)
    rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in zip(*shown, strict=True)]
    return f'<table class="figures"><tr>{head}</tr>{"".join(f"<tr>{row}</tr>" for row in rows)}</table>'


def _section(rows: Sequence[Row], corpus: CorpusReader) -> str:
    """rows: of one question, by cell."""
    first = rows[0]
    picture = _image(corpus.picture(corpus.row(first["row_id"])))
    references = "".join(f"<li>{escape(reference)}</li>" for reference in first["references"])
    told = "".join(
        f"<tr><td>{escape(row['model'])}<br><small>{_condition(row)}</small></td>"
        f"<td>{escape(row['answer']) or '<small>nothing</small>'}</td><td>{_neighbors(row['neighbors'])}</td></tr>"
        for row in rows
    )
    head = "<tr><th>model</th><th>answer</th><th>neighbours</th></tr>"
    asked = f"<p>{escape(first['asked'])}</p>" if first["asked"] else ""
    about = f"<small>{escape(first['question'])}</small>{asked}<ol>{references}</ol>"
    return f'<div class="asked">{picture}<div>{about}</div></div><table>{head}{told}</table>'


def _condition(row: Row) -> str:
    database = f"{escape(row['database'])}, k {row['k']}" if row["k"] else "no database"
    return f"{database}, {row['shots']} shots ({row['examples']}), {row['new_tokens']} tokens"


def _neighbors(neighbors: Sequence[Row]) -> str:
    return "<br>".join(f"{each['similarity']:.3f} {escape(each['caption'])}" for each in neighbors)


def _image(jpeg: bytes) -> str:
    with Image.open(io.BytesIO(jpeg)) as picture:
        return picture_tag(picture)
