"""What is measured of answers, by task, beside what a captioner has to beat.

captions  BLEU, ROUGE-L and CIDEr-D; METEOR and SPICE where their jars are given; clip_score, cosine of picture and
          caption. With neighbours: copied, the share of a caption's words that are its longest run in common with one;
          equals_neighbor, the share of captions that are one's; nearest/…, the metrics of the nearest one's caption in
          the answer's place (an empty one where a picture has none)
vqa       accuracy: the soft one of VQAv2
choices   accuracy: the share of answers that are true
The intervals are bootstraps over pictures.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.evaluation.bootstrap import Figure, clustered, interval
from model.evaluation.caption_scores import caption_scores
from model.evaluation.jar_metrics import Java, NotComputed, meteor, spice
from model.evaluation.recipe import EvaluationRecipe
from model.evaluation.vqa_accuracy import soft_accuracy
from model.training.captions import Captioned

NEAREST = "nearest/"

Row = Mapping[str, Any]  # of ANSWERS
Measured = dict[str, Figure | NotComputed]


def measured(rows: Sequence[Row], recipe: EvaluationRecipe) -> Measured:
    """rows: answers to all questions of a set, or of a domain, under one condition. By metric."""
    if recipe.vqa is not None:
        return _accuracy(rows, [soft_accuracy(row["answer"], row["references"]) for row in rows], recipe.seed)
    if recipe.choices is not None:
        return _accuracy(rows, [float(row["answer"] in row["references"]) for row in rows], recipe.seed)
    return _captions(rows, recipe)


def _accuracy(rows: Sequence[Row], right: Sequence[float], seed: int) -> Measured:
    return {"accuracy": clustered(np.array(right), [row["row_id"] for row in rows], seed=seed)}


def _captions(rows: Sequence[Row], recipe: EvaluationRecipe) -> Measured:
    references = {row["question"]: row["references"] for row in rows}
    answers = {row["question"]: row["answer"] for row in rows}
    found: Measured = dict(caption_scores(answers, references, seed=recipe.seed).figures)
    for name, metric, jar in (("meteor", meteor, recipe.meteor), ("spice", spice, recipe.spice)):
        value = metric(Java(jar), candidates=answers, references=references)
        found[name] = value if isinstance(value, NotComputed) else Figure(value, np.nan, np.nan)
    found["clip_score"] = _mean([row["clip_score"] for row in rows], recipe.seed)
    if rows[0]["k"]:
        copies = [_captioned(row) for row in rows]
        found["copied"] = _mean([each.copied for each in copies], recipe.seed)
        found["equals_neighbor"] = _mean([float(each.equals_neighbor) for each in copies], recipe.seed)
        found["neighbors"] = _mean([float(len(row["neighbors"])) for row in rows], recipe.seed)
        nearest = {row["question"]: row["neighbors"][0]["caption"] if row["neighbors"] else "" for row in rows}
        baseline = caption_scores(nearest, references, seed=recipe.seed).figures
        found |= {f"{NEAREST}{name}": figure for name, figure in baseline.items()}
    return found


def _captioned(row: Row) -> Captioned:
    neighbors = tuple(neighbor["caption"] for neighbor in row["neighbors"])
    return Captioned(id=row["question"], reference="", generated=row["answer"], neighbors=neighbors, loss=0.0)


def _mean(values: Sequence[float], seed: int) -> Figure:
    return interval(np.array(values, np.float64), np.ones(len(values)), seed=seed)
