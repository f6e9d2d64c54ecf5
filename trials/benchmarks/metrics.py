"""The caption metrics beside pycocoevalcap's, on the same tokens; the tokeniser beside the Java program's.

pycocoevalcap comes with an environment of its own: REVILM_COCO_ENV names its folder, the parent of bin/python.
"""

import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from model.evaluation.bleu import bleu
from model.evaluation.cider import cider_d
from model.evaluation.ptb_tokenizer import ptb_tokens
from model.evaluation.rouge import rouge_l
from trials.benchmarks.clock import cpu_seconds

Line = tuple[str, str]
Captions = tuple[dict[str, str], dict[str, list[str]]]
"""Candidate and references of every image."""
REPETITIONS = 3
TARGET = 2.0  # times as fast


def metrics(images: int = 5_000, references: int = 5) -> Iterator[Line]:
    """In CPU seconds on one thread, medians of repetitions; the Java program's with those of its own threads."""
    home = os.environ.get("REVILM_COCO_ENV")
    given = drawn(images, references)
    yield "captions", f"{images:,} images × {references} references, drawn from a bigram model"
    yield from _tokens(given)
    if home is None:
        yield "beside pycocoevalcap", "not run: REVILM_COCO_ENV names no environment with pycocoevalcap"
        return
    theirs = _theirs(Path(home, "bin", "python"), given)
    ours = {name: _measured(metric, given) for name, metric in _METRICS.items()}
    for name in _METRICS:
        yield name, _ratio(ours[name]["seconds"], theirs[name]["seconds"])
    mine, other = (sum(each[name]["seconds"] for name in _METRICS) for each in (ours, theirs))
    missed = "" if other >= TARGET * mine else ": missed"
    yield f"all three (target ≥ {TARGET:g} ×)", f"**{_ratio(mine, other)}**{missed}"
    apart = max(
        abs(a - b) for name in _METRICS for a, b in zip(ours[name]["scores"], theirs[name]["scores"], strict=True)
    )
    shown = ", ".join(f"{score:.3f}" for name in _METRICS for score in ours[name]["scores"])
    yield f"largest difference of a score of the set ({shown})", f"{apart:.1e}"
    yield "the Java tokeniser, with its start", _rate(len(_texts(given)), theirs["tokenizer"]["seconds"])


def drawn(images: int, references: int, *, words: int = 2_000, seed: int = 0) -> Captions:
    """Lower-case words joined by blanks, 6 to 16 a caption. A word is followed by one of 40, the nearer the likelier.
    All captions of an image begin as one of them does, so that they have n-grams in common."""
    chance = random.Random(seed)
    followers = [[chance.randrange(words) for _ in range(40)] for _ in range(words)]
    likelier = [1 / (1 + place) for place in range(40)]

    def caption(begun: Sequence[int]) -> list[int]:
        said = list(begun)
        for _ in range(chance.randint(6, 16) - len(said)):
            said += chance.choices(followers[said[-1]], likelier)
        return said

    def of_image() -> list[str]:
        first = caption([int(words * chance.random() ** 3)])
        others = (caption(first[: chance.randint(1, 6)]) for _ in range(references))
        return [" ".join(map(_spelt, said)) for said in (first, *others)]

    captions = {str(image): of_image() for image in range(images)}
    return {image: each[0] for image, each in captions.items()}, {image: each[1:] for image, each in captions.items()}


def _spelt(word: int) -> str:
    return "".join("aeiou"[digit % 5] + "bdfgklmnprstvw"[digit % 14] for digit in (word % 70, word // 70 + 1))


def _bleu(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> list[float]:
    return list(bleu(candidates=candidates, references=references, tokenize=str.split).scores)


def _rouge_l(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> list[float]:
    return [rouge_l(candidates=candidates, references=references, tokenize=str.split).score]


def _cider_d(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> list[float]:
    return [cider_d(candidates=candidates, references=references, tokenize=str.split).score]


_METRICS = {"bleu": _bleu, "rouge_l": _rouge_l, "cider_d": _cider_d}


def _measured(metric: Callable[..., list[float]], given: Captions) -> dict[str, Any]:
    """Every repetition reads the captions anew."""
    return {
        "seconds": median(cpu_seconds(lambda: metric(*given)) for _ in range(REPETITIONS)),
        "scores": metric(*given),
    }


def _tokens(given: Captions) -> Iterator[Line]:
    texts = _texts(given)
    started = time.process_time()
    for text in texts:
        ptb_tokens(text)
    yield "our tokeniser", _rate(len(texts), time.process_time() - started)


def _theirs(python: Path, given: Captions) -> dict[str, Any]:
    """Raises subprocess.CalledProcessError or TimeoutExpired."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "captions.json")
        file.write_text(json.dumps(given))
        script = Path(__file__).with_name("caption_rival.py")
        command = [str(python), str(script), str(file), str(REPETITIONS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _texts(given: Captions) -> list[str]:
    return [*given[0].values(), *(text for texts in given[1].values() for text in texts)]


def _ratio(ours: float, theirs: float) -> str:
    return f"{theirs / ours:.1f} × as fast ({ours:.2f} s against {theirs:.2f} s)"


def _rate(texts: int, seconds: float) -> str:
    return f"{texts / seconds:,.0f} captions/s ({seconds:.2f} s)"
