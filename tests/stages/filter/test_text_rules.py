"""Irregular text leaves with the reason that a person would give, and captions of any script stay."""

import gzip
import json
import tarfile
import time
from pathlib import Path

import pytest

from pipeline.reasons import Reason
from stages.filter import TextRules, normalised
from stages.filter.rules import Rule
from stages.filter.text_rules import RULES, Text, caption_reason

REGULAR = [
    "a dog",
    "猫が好き",
    "小狗",
    "一只猫坐在红色的沙发上，看着窗外。",
    "개와 고양이",
    "แมวนั่งอยู่บนโซฟา",
    "Một chú chó đang chạy trên bãi cỏ.",
    "قطة تجلس على أريكة حمراء",
    "दो कुत्ते बर्फ में खेल रहे हैं",
    "חתול על ספה",
    "می‌خواهم گربه را ببینم",
    "E\u0301te\u0301",  # decomposed
    "<PERSON> waves to the crowd in <PERSON>",
    "2019 BMW",
    "I <3 this place & its people; 5 < 6",
    "New look at Amazon.com: a dress for the summer",
    "the file IMG_1234.jpg shows a dog that runs along the beach",
    "Untitled painting of a horse",
    "sooooo happy",
    "👩‍👩‍👧 a family at the beach",
]

IRREGULAR = {
    Reason.CAPTION_NO_LETTERS: ["", "... --- ...", "★ ★ ★ ★ !!!", "4711 0815", "😀😀😀"],
    Reason.CAPTION_TOO_SHORT: ["ok", "a", "猫", "№ x", "é!"],
    Reason.CAPTION_TOO_LONG: ["long " * 201, "長い" * 501],
    Reason.CAPTION_HTML: ['<a href="/shop">a star</a>', "a star<br/><br/>", "fish &amp; chips", "&#34;a star&#34;"],
    Reason.CAPTION_URL: [
        "https://shop.example/items/red-star",
        "www.shop.example",
        "看 https://a.example/b/c",
        "etsy.com",
    ],
    Reason.CAPTION_FILE_NAME: [
        "red_star_final.jpg",
        "DSC_0412.JPG",
        "红色的猫.png",
        "IMG-20150101-WA0003",
        "my star.jpeg",
    ],
    Reason.CAPTION_DIGITS: ["no 4711 0815 2319 7781 6654", "20190412 113355 ab", "٢٠١٩٠٤١٢ سنة"],
    Reason.CAPTION_SYMBOLS: ["*** star ***", "★★★★☆ red!!!", "-=[ABC]=-_/_/"],
    Reason.CAPTION_REPETITION: [
        "a" * 20,
        "wait for it ............ now it came",
        "star " * 12 + "star",
        "哈" * 10,
        "buy now " * 4,
    ],
    Reason.CAPTION_BOILERPLATE: ["image not available", "Image Not Available!", "  no  image ", "ＵＮＴＩＴＬＥＤ"],
}


@pytest.mark.parametrize("caption", REGULAR)
def test_a_caption_of_any_script_passes(caption: str) -> None:
    assert caption_reason(caption, TextRules()) is None


@pytest.mark.parametrize(
    ("reason", "caption"), [(reason, text) for reason, texts in IRREGULAR.items() for text in texts]
)
def test_irregular_text_leaves_with_its_reason(reason: Reason, caption: str) -> None:
    fault = caption_reason(caption, TextRules())
    assert fault is not None
    assert fault[0] is reason


def test_every_rule_has_a_case() -> None:
    assert {rule.reason for rule in RULES} | {Reason.CAPTION_BOILERPLATE} == set(IRREGULAR)


@pytest.mark.parametrize("reason", IRREGULAR)
def test_null_switches_a_rule_off(reason: Reason) -> None:
    off = {rule.setting: None for rule in RULES if rule.reason is reason}
    rules = TextRules.model_validate(off or {"boilerplate": []})
    for caption in IRREGULAR[reason]:
        fault = caption_reason(caption, rules)
        assert fault is None or fault[0] is not reason


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.setting)
def test_a_limit_itself_is_allowed(rule: Rule[Text]) -> None:
    for caption in [*REGULAR, *IRREGULAR[rule.reason]]:
        found = rule.measure(Text(caption))
        everything_else_off = {other.setting: None for other in RULES} | {"boilerplate": ()}
        rules = TextRules.model_validate(everything_else_off | {rule.setting: found})
        assert caption_reason(caption, rules) is None


def test_the_detail_names_the_setting_its_value_and_what_was_found() -> None:
    assert caption_reason("ok", TextRules()) == (Reason.CAPTION_TOO_SHORT, "min_characters 3: found 2")


def test_boilerplate_is_matched_whole_however_it_is_written() -> None:
    rules = TextRules(boilerplate=("Aucune  Image!",))
    assert caption_reason("AUCUNE IMAGE.", rules) == (Reason.CAPTION_BOILERPLATE, "boilerplate: aucune image")
    assert caption_reason("aucune image de chat", rules) is None


def test_normalised_keeps_letters_marks_and_digits_of_every_script() -> None:
    assert normalised("  Ｃａｆé—2！ ") == "café 2"
    assert normalised("แมว,นั่ง") == "แมว นั่ง"


def test_nearly_all_real_captions_pass(real_data: Path) -> None:
    for name, captions in {
        "cc3m": _cc3m(real_data),
        "flickr8k": _flickr8k(real_data),
        "vi_captions": _vi_captions(real_data),
    }.items():
        found = [caption_reason(caption, TextRules()) for caption in captions]
        rejected = [fault[0].value for fault in found if fault]
        assert len(rejected) / len(captions) <= 0.001, f"{name}: {len(rejected)} of {len(captions)}, {set(rejected)}"


def _cc3m(folder: Path) -> list[str]:
    lines = (folder / "cc3m" / "Validation_GCC-1.1.0-Validation.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[0] for line in lines[::4]]


def _flickr8k(folder: Path) -> list[str]:
    with gzip.open(folder / "flickr8k" / "dataset_flickr8k.json.gz") as file:
        images = json.load(file)["images"]
    return [image["sentences"][0]["raw"] for image in images]


def _vi_captions(folder: Path) -> list[str]:
    with tarfile.open(folder / "vi_captions" / "vi-00000.tar") as tar:
        records = [tar.extractfile(member) for member in tar if member.name.endswith(".json")]
        return [caption for record in records if record for caption in json.load(record)["captions"]]


def test_a_caption_without_a_limit_of_length_takes_no_time() -> None:
    rules = TextRules(max_characters=None)
    started = time.process_time()
    for caption in ("a." * 50_000, "www." * 25_000, "<" * 100_000, "ab " * 33_000):
        caption_reason(caption, rules)
    assert time.process_time() - started < 5
