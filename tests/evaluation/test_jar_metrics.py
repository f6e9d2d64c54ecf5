"""METEOR and SPICE as programs: what they are asked, what their answer becomes, and what is said where there is none.

A script stands where Java would, so that these need neither Java nor the jars; tests/evaluation/test_pycocoevalcap.py
runs the real METEOR."""

from pathlib import Path

import pytest

from model.evaluation.jar_metrics import Java, NotComputed, meteor, spice

CANDIDATES = {"1": "A dog, running!", "2": "two birds"}
REFERENCES = {"1": ["a dog runs", "dogs"], "2": ["birds"]}


def program(folder: Path, script: str) -> Java:
    """In java's place."""
    file = Path(folder, "java")
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    Path(folder, "metric.jar").touch()
    return Java(Path(folder, "metric.jar"), java=str(file), limit_s=5)


def test_meteor_is_asked_with_the_tokens_and_its_last_line_is_the_score(tmp_path: Path) -> None:
    java = program(tmp_path, 'tee -a asked | sed "s/^SCORE.*/4.0 3.0/; s/^EVAL.*/0.1\\n0.9\\n0.25/"')
    assert meteor(java, candidates=CANDIDATES, references=REFERENCES) == 0.25
    assert Path(tmp_path, "asked").read_text().splitlines() == [
        "SCORE ||| a dog runs ||| dogs ||| a dog running",
        "SCORE ||| birds ||| two birds",
        "EVAL ||| 4.0 3.0 ||| 4.0 3.0",
    ]


ANSWER = '[{"image_id": "1", "scores": {"All": {"f": 0.5}}}, {"image_id": "2", "scores": {"All": {"f": 0.25}}}]'
INTO = 'while [ "$1" != -out ]; do shift; done; echo'


def test_spice_is_the_mean_of_the_images(tmp_path: Path) -> None:
    java = program(tmp_path, f"{INTO} '{ANSWER}' > $2")
    assert spice(java, candidates=CANDIDATES, references=REFERENCES) == 0.375


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo NoClassDefFoundError: CoreNLP >&2; echo more >&2; exit 1",
            "ended with code 1: NoClassDefFoundError: CoreNLP",
        ),
        ("exit 3", "ended with code 3: nothing"),
        ("exec sleep 60", "took more than 0.2 s"),
        ("echo", "answered 1 of 2 images"),
    ],
)
def test_a_program_that_fails_gives_no_score_but_the_reason(tmp_path: Path, script: str, said: str) -> None:
    java = program(tmp_path, script)
    if "sleep" in script:
        java = Java(java.jar, java=java.java, limit_s=0.2)
    found = meteor(java, candidates=CANDIDATES, references=REFERENCES)
    assert isinstance(found, NotComputed)
    assert said in str(found)


def test_an_answer_of_spice_that_lacks_images_or_scores_is_none(tmp_path: Path) -> None:
    for answer, said in (("[]", "answered 0 of 2"), (ANSWER.replace("0.5", '"NaN"'), "a score is 'NaN'")):
        found = spice(program(tmp_path, f"{INTO} '{answer}' > $2"), candidates=CANDIDATES, references=REFERENCES)
        assert isinstance(found, NotComputed)
        assert said in str(found)
    silent = spice(program(tmp_path, "exit 0"), candidates=CANDIDATES, references=REFERENCES)
    assert str(silent).endswith("wrote no answer")


def test_a_java_or_jar_that_is_not_there_is_named(tmp_path: Path) -> None:
    Path(tmp_path, "metric.jar").touch()
    without_java = meteor(
        Java(Path(tmp_path, "metric.jar"), java="no-java-here"), candidates=CANDIDATES, references=REFERENCES
    )
    assert str(without_java) == "not computed: there is no no-java-here"
    without_jar = meteor(Java(Path(tmp_path, "other.jar")), candidates=CANDIDATES, references=REFERENCES)
    assert str(without_jar) == f"not computed: there is no jar at {tmp_path}/other.jar"
