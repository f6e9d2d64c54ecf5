"""VQAv2's soft accuracy from its definition; the odd cases were given to its evaluation's own code."""

from random import Random

import pytest

from model.evaluation.vqa_accuracy import ALL, normalised, soft_accuracy, vqa_accuracy
from model.evaluation.vqa_files import Question


def people(equal: int, answer: str = "red") -> list[str]:
    """Ten answers, of which so many are this one, and no other two are equal."""
    return [answer] * equal + [f"colour {number}" for number in range(10 - equal)]


@pytest.mark.parametrize(("equal", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)])
def test_of_ten_people_each_that_agrees_is_worth_three_tenths(equal: int, accuracy: float) -> None:
    assert soft_accuracy("red", people(equal)) == pytest.approx(accuracy)


def test_it_is_the_mean_over_leaving_each_person_out() -> None:
    random = Random(2)
    for _ in range(200):
        answers = random.choices(["red", "blue", "tan"], k=random.randint(2, 12)) + ["grey"]
        shares = [min((answers[:left] + answers[left + 1 :]).count("red") / 3, 1) for left, _ in enumerate(answers)]
        assert soft_accuracy("red", answers) == pytest.approx(sum(shares) / len(answers))


def test_where_all_people_wrote_the_same_only_line_breaks_are_mended() -> None:
    assert soft_accuracy("\tA stop sign\n", ["A stop sign"] * 10) == 1.0
    assert soft_accuracy("a stop sign", ["A stop sign"] * 10) == 0.0
    assert soft_accuracy("Yes.", ["yes"] * 10) == 0.0
    assert soft_accuracy("Yes.", ["yes"] * 9 + ["no"]) == 1.0


def test_answers_of_people_are_normalised_as_the_model_s_is() -> None:
    assert soft_accuracy("2 dogs", ["Two dogs!", "the 2 dogs", "two dogs", "2 dogs."] + ["cats"] * 6) == 1.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Dog", "dog"),
        ("an apple on a table", "apple on table"),
        ("none", "0"),
        ("Ten or eleven", "10 or eleven"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),  # both apostrophes are missing: not in the list
        ("couldn'tve", "couldn't've"),
        ("ow's'at", "'ow's'at"),
        ("somebody'd", "somebodyd"),
        ("Im", "im"),  # the list has "Im", but words are in lower case by then
        ("shed", "shed"),
        ("the girl's 2:50 pm", "girl's 2:50 pm"),
        ("1,000", "1000"),
        ("1,000 red-brown", "1000 redbrown"),  # a comma in a number: every mark is deleted
        ("red-brown", "red brown"),
        ("red-brown, tan", "red brown tan"),  # the comma stands beside a space, the hyphen does not
        ("red- brown-red", "red brownred"),  # a hyphen beside a space deletes all of them
        ("what?!", "what"),
        ("3.5 a.m.", "3.5 am"),
        ("v.2", "v.2"),
        ("x" + "." * 33, "x."),  # 32 periods leave
        ("a", ""),
        ("", ""),
        ("two\u00a0dogs", "2 dogs"),
    ],
)
def test_an_answer_is_normalised_as_the_evaluation_does(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


def question(number: int, image: str, kind: str, *answers: str) -> Question:
    return Question(f"q{number}", image, "what is it?", answers, kind, ())


QUESTIONS = [
    question(0, "1", "yes/no", *["yes"] * 10),
    question(1, "1", "yes/no", *["no"] * 10),
    question(2, "2", "number", *["2"] * 3, *["3"] * 7),
    question(3, "3", "", *["red"] * 10),
]


def test_the_accuracy_of_a_set_is_the_mean_of_its_questions_by_type_too() -> None:
    found = vqa_accuracy(answers={"q0": "yes", "q1": "yes", "q2": "two", "q3": "red"}, questions=QUESTIONS)
    assert {kind: figure.value for kind, figure in found.items()} == {
        ALL: pytest.approx((1 + 0 + 0.9 + 1) / 4),
        "yes/no": 0.5,
        "number": pytest.approx(0.9),
    }
    assert found["yes/no"].low == found["yes/no"].high == 0.5  # of one picture there is nothing to draw
    assert found[ALL].low < found[ALL].value < found[ALL].high


def test_answers_of_another_set_are_refused() -> None:
    with pytest.raises(ValueError, match="2 answers to 4 questions: 3 have none, 1 are to others"):
        vqa_accuracy(answers={"q0": "yes", "q9": "no"}, questions=QUESTIONS)
