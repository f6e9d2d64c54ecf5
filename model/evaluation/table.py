"""The scores of an evaluation (SCORES), a line a cell."""

import polars as pl

from model.evaluation.measured import NEAREST
from model.evaluation.scores import CELL, EvaluationScores
from pipeline.commits import Whole

COUNTS = ("in_trained_on", "in_database")
SHOWN = ("accuracy", "cider_d", "bleu_4", "rouge_l", f"{NEAREST}cider_d", "copied", "clip_score", *COUNTS)


def read_scores(root: str) -> pl.DataFrame:
    """Raises InputError where they are not whole."""
    return pl.DataFrame(Whole.open(root, EvaluationScores.name).tables("scores"))


def scores_table(scores: pl.DataFrame) -> pl.DataFrame:
    """A row a cell and domain; scores × 100, as papers print them."""
    times = pl.when(pl.col("metric").is_in(COUNTS)).then(1).otherwise(100)
    shown = scores.filter(pl.col("metric").is_in(SHOWN)).with_columns((pl.col("value") * times).round(1))
    wide = shown.pivot("metric", index=[*CELL, "domain", "questions"], values="value", maintain_order=True)
    return wide.select(*CELL, "domain", "questions", *(name for name in SHOWN if name in wide.columns))


def notes(scores: pl.DataFrame) -> list[str]:
    """Why scores are not computed, or not of the whole set."""
    noted = scores.filter(pl.col("note") != "")
    lacking = noted.filter(pl.col("value").is_null()).select("metric", "note").unique(maintain_order=True)
    partial = noted.filter(pl.col("value").is_not_null())["note"].unique(maintain_order=True)
    return [*(f"{metric}: {note}" for metric, note in lacking.iter_rows()), *partial]
