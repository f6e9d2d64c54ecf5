"""METEOR 1.5 and SPICE 1.0: Java programs of their authors, run where there is a Java and their jars are given.

Both get the tokens that the other metrics get, as pycocoevalcap gives them. Where a score cannot be had, the answer
says why: no other metric stands in for it.
"""

import json
import math
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.evaluation.grams import Tokenize, Tokenized, tokenized
from model.evaluation.ptb_tokenizer import ptb_tokens

# SPICE's serialiser looks into the JDK's own classes, which Java ≥ 16 allows only where told (tylin/coco-caption#59).
_OPENED = [
    f"--add-opens=java.base/java.{package}=ALL-UNNAMED"
    for package in ("lang", "lang.reflect", "util", "util.concurrent", "math", "net", "text")
]


@dataclass(frozen=True)
class NotComputed:
    why: str

    def __str__(self) -> str:
        return f"not computed: {self.why}"


@dataclass(frozen=True)
class Java:
    jar: Path | None  # the metric's; what it needs beside it lies where its authors put it
    java: str = "java"
    memory: str = "2G"  # SPICE on a large set wants 8G
    limit_s: float = 1800.0  # of one run; METEOR is two


class _Failed(Exception):
    """What a program said as it gave no score."""


def meteor(
    java: Java,
    *,
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenize: Tokenize = ptb_tokens,
) -> float | NotComputed:
    """Of the set, 0…1. java.jar: meteor-1.5.jar, with data/paraphrase-en.gz beside it. Takes and raises what cider_d
    does."""
    return _score_or_why(_meteor, java, tokenized(candidates, references, tokenize))


def spice(
    java: Java,
    *,
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenize: Tokenize = ptb_tokens,
) -> float | NotComputed:
    """Of the set, 0…1. java.jar: spice-1.0.jar, with lib/ beside it and CoreNLP 3.6.0 with its models in that. Takes
    and raises what cider_d does."""
    return _score_or_why(_spice, java, tokenized(candidates, references, tokenize))


def _score_or_why(metric: Callable[[Java, Tokenized], float], java: Java, captions: Tokenized) -> float | NotComputed:
    if java.jar is None:
        return NotComputed("no jar is named")
    if not java.jar.is_file():
        return NotComputed(f"there is no jar at {java.jar}")
    try:
        return metric(java, captions)
    except _Failed as failed:
        return NotComputed(str(failed))


def _meteor(java: Java, captions: Tokenized) -> float:
    """The first run aligns the captions, the second makes one score of what it counted."""
    asked = [
        " ||| ".join(["SCORE", *map(" ".join, references), " ".join(candidate)])
        for candidate, references in zip(captions.candidates, captions.references, strict=True)
    ]
    arguments = ["-", "-", "-stdio", "-l", "en", "-norm"]
    counted = _ran(java, [], arguments, "\n".join(asked)).split("\n")
    if len(counted) != len(asked):
        raise _Failed(f"{java.jar} answered {len(counted)} of {len(asked)} images")
    answer = _ran(java, [], arguments, " ||| ".join(["EVAL", *counted])).split("\n")[-1]
    return _number(answer)


def _spice(java: Java, captions: Tokenized) -> float:
    asked = [
        {"image_id": image, "test": " ".join(candidate), "refs": [" ".join(each) for each in references]}
        for image, candidate, references in zip(captions.images, captions.candidates, captions.references, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        given, answer, cache = (Path(folder, name) for name in ("given.json", "answer.json", "cache"))
        given.write_text(json.dumps(asked))
        cache.mkdir()
        _ran(java, _OPENED, [str(given), "-cache", str(cache), "-out", str(answer), "-subset", "-silent"], "")
        if not answer.is_file():
            raise _Failed(f"{java.jar} wrote no answer")
        scores = [_number(image["scores"]["All"]["f"]) for image in json.loads(answer.read_bytes())]
    if len(scores) != len(asked):
        raise _Failed(f"{java.jar} answered {len(scores)} of {len(asked)} images")
    return sum(scores) / len(scores)


def _ran(java: Java, options: Sequence[str], arguments: Sequence[str], given: str) -> str:
    """What it says, without the last line end. Raises _Failed."""
    assert java.jar is not None
    command = [java.java, f"-Xmx{java.memory}", *options, "-jar", java.jar.name, *arguments]
    try:
        done = subprocess.run(
            command,
            input=f"{given}\n",
            cwd=java.jar.parent,
            capture_output=True,
            encoding="utf-8",
            timeout=java.limit_s,
            check=False,
        )
    except FileNotFoundError:
        raise _Failed(f"there is no {java.java}") from None
    except subprocess.TimeoutExpired:
        raise _Failed(f"{java.jar} took more than {java.limit_s:g} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[0]
        raise _Failed(f"{java.jar} ended with code {done.returncode}: {said}")
    return done.stdout.strip()


def _number(said: object) -> float:
    try:
        number = float(str(said))
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise _Failed(f"a score is {str(said)[:100]!r}; allowed is a number")
    return number
