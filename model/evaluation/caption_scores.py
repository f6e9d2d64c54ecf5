"""All caption metrics of a set at once, with intervals: tokenised once.

The intervals are bootstraps over images. BLEU is computed anew from the summed counts of the images drawn. Of ROUGE-L
and CIDEr-D the images' scores are drawn; CIDEr-D's keep the rarity of n-grams in the whole set, so its interval is that
of captions for this set, not of another choice of references' words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.evaluation.bleu import bleu_of, bleu_of_counts
from model.evaluation.bootstrap import Figure, interval, interval_of
from model.evaluation.cider import cider_d_of
from model.evaluation.grams import ORDERS, Tokenize, tokenized
from model.evaluation.ptb_tokenizer import ptb_tokens
from model.evaluation.rouge import rouge_l_of

NAMES = (*(f"bleu_{order}" for order in ORDERS), "rouge_l", "cider_d")


@dataclass(frozen=True)
class CaptionScores:
    """By NAMES. BLEU and ROUGE-L are 0…1, CIDEr-D 0…10; papers print all × 100."""

    figures: dict[str, Figure]
    per_image: dict[str, dict[str, float]]  # of every image; BLEU's mean over images is not its figure


def caption_scores(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    tokenize: Tokenize = ptb_tokens,
    seed: int = 0,
) -> CaptionScores:
    """candidates: the caption to judge of every image; references: its true ones.

    Raises ValueError where the two are not of the same images, where there is no image, and where one has no reference.
    """
    captions = tokenized(candidates, references, tokenize)
    bleu, rouge_l, cider_d = bleu_of(captions), rouge_l_of(captions), cider_d_of(captions)
    bleu_figures = interval_of(bleu_of_counts, bleu.counts, seed=seed)
    figures = [*bleu_figures, _mean(rouge_l.per_image, seed), _mean(cider_d.per_image, seed)]
    of_images = {
        image: (*bleu.per_image[image], rouge_l.per_image[image], cider_d.per_image[image]) for image in captions.images
    }
    return CaptionScores(
        figures=dict(zip(NAMES, figures, strict=True)),
        per_image={image: dict(zip(NAMES, scores, strict=True)) for image, scores in of_images.items()},
    )


def _mean(per_image: Mapping[str, float], seed: int) -> Figure:
    scores = np.array(list(per_image.values()))
    return interval(scores, np.ones(len(scores)), seed=seed)
