"""Files of VQAv2's form are read in order, and everything that is wrong with them is told at once."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.evaluation.vqa_files import Question, read_vqa
from pipeline.errors import InputError


def asked(number: int, **changes: Any) -> dict[str, Any]:
    return {"question_id": number, "image_id": number // 10, "question": f"what is {number}?"} | changes


def answered(number: int, *answers: str, **changes: Any) -> dict[str, Any]:
    people = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": place} for place, answer in enumerate(answers)
    ]
    told = {"question_type": "what", "multiple_choice_answer": "red", "answer_type": "other", "answers": people}
    return {"question_id": number, "image_id": number // 10} | told | changes


def written(folder: Path, questions: Any, annotations: Any) -> tuple[Path, Path]:
    paths = folder / "questions.json", folder / "annotations.json"
    paths[0].write_text(json.dumps({"info": {"version": "2.0"}, "questions": questions}))
    paths[1].write_text(json.dumps({"license": {}, "annotations": annotations}))
    return paths


def fault(folder: Path, questions: Any, annotations: Any) -> str:
    with pytest.raises(InputError) as raised:
        read_vqa(*written(folder, questions, annotations))
    return str(raised.value).replace(f"{folder}/", "")


def test_questions_come_in_their_file_s_order_with_what_people_answered(tmp_path: Path) -> None:
    files = written(
        tmp_path,
        [asked(20, multiple_choices=["red", "blue"]), asked(11)],
        [answered(11, "tan"), answered(20, "red", "blue", "red")],
    )
    assert read_vqa(*files) == [
        Question("20", "2", "what is 20?", ("red", "blue", "red"), "other", ("red", "blue")),
        Question("11", "1", "what is 11?", ("tan",), "other", ()),
    ]


def test_all_faults_are_told_at_once_with_number_and_names(tmp_path: Path) -> None:
    questions = [asked(number) for number in (*range(10, 18), 30, 31, 10)]
    annotations = [answered(30), answered(31, "red", image_id=7), answered(40, "red"), answered(40, "red")]
    assert fault(tmp_path, questions, annotations).splitlines() == [
        "questions.json names questions more than once: 1 question (10)",
        "annotations.json names questions more than once: 1 question (40)",
        "annotations.json answers not all of questions.json: 8 questions (10, 11, 12, 13, 14, …) of 10 are missing",
        "annotations.json answers what questions.json does not ask: 1 question (40) of 3",
        "questions.json and annotations.json name different pictures: 1 question (31)",
        "annotations.json holds no answer: 1 question (30)",
    ]


def test_files_without_a_question_are_refused(tmp_path: Path) -> None:
    assert "questions.json holds no question" in fault(tmp_path, [], [])


def test_another_form_is_told_by_its_first_faults(tmp_path: Path) -> None:
    said = fault(tmp_path, [{"question_id": 1}, asked(2)], [])
    assert said == (
        "questions.json is not of VQAv2's form (questions): 2 faults (questions.0.image_id: Field required, "
        "questions.0.question: Field required)"
    )
    questions, annotations = written(tmp_path, [asked(2)], [answered(2, "red")])
    with pytest.raises(InputError, match=r"annotations.json is not of VQAv2's form \(questions\): 1 fault"):
        read_vqa(annotations, questions)
    questions.write_text('{"questions": [')
    with pytest.raises(InputError, match="is not of VQAv2's form.*Invalid JSON"):
        read_vqa(questions, annotations)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_vqa(tmp_path / "none.json", annotations)
