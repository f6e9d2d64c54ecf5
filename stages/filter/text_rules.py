"""Irregular text (Re-ViLM §4.1 names it and gives no rules; the rules and their limits are ours).

The rules count Unicode letters, marks, digits and symbols by category, never words of a language, so a caption in a
script without spaces or without Latin letters is judged like any other.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from pydantic import Field, field_validator

from pipeline.reasons import Reason
from pipeline.recipe import Section
from stages.filter.normal_form import normalised
from stages.filter.rules import Fault, Rule, first_fault

BOILERPLATE = (
    "alt text",
    "click to enlarge",
    "coming soon",
    "default image",
    "image coming soon",
    "image not available",
    "image not found",
    "image placeholder",
    "image unavailable",
    "loading",
    "no caption",
    "no description",
    "no description available",
    "no image",
    "no image available",
    "no photo",
    "no photo available",
    "no picture available",
    "no thumbnail available",
    "photo coming soon",
    "photo not available",
    "photo unavailable",
    "picture not available",
    "placeholder",
    "placeholder image",
    "this image is no longer available",
    "untitled",
)

FEW_WORDS = 6
"""A caption of fewer words may repeat them."""

LOOKED_AT = 2000  # characters
_URL = re.compile(
    r"(?:(?:https?|ftp)://|www\.)[!-~]+"
    r"|\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:com|net|org)\b(?:/[!-~]*)?",
    re.I,
)
_FILE_NAME = re.compile(
    r"\S+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif|psd|raw|pdf)(?![a-z0-9])"
    r"|\b(?:IMG|DSC[NF]?|PICT|PXL|MVI|GOPR|Screenshot)[-_ ]?[0-9]{3,}[-_0-9A-Z]*",
    re.I,
)
# Real elements only: <PERSON> is CC12M's mark for a name.
_HTML = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|body|br|button|center|code|div|em|embed|figcaption|figure|font|footer|form|h[1-6]"
    r"|head|header|hr|html|i|iframe|img|input|label|li|link|meta|nav|ol|p|pre|s|script|section|small|span|strong|style"
    r"|sub|sup|svg|table|tbody|td|th|thead|tr|u|ul|video)(?:\s[^<>]*)?/?>"
    r"|&(?:#[0-9]+|#x[0-9a-f]+|[a-z]+[0-9]*);",
    re.I,
)


class TextRules(Section):
    """null switches a rule off. A limit itself is allowed."""

    min_letters: int | None = Field(default=1, ge=0)  # Unicode letters
    min_characters: int | None = Field(default=3, ge=0)  # letters, marks and digits; a wide one (漢, 한) counts as two
    max_characters: int | None = Field(default=1000, ge=1)  # of the whole caption
    max_html: int | None = Field(default=0, ge=0)  # tags and entities
    max_url_share: float | None = Field(default=0.5, ge=0, le=1)  # of what is not space
    max_file_name_share: float | None = Field(default=0.5, ge=0, le=1)  # of what is not space
    max_digit_share: float | None = Field(default=0.6, ge=0, le=1)  # of letters, marks and digits
    max_symbol_share: float | None = Field(default=0.5, ge=0, le=1)  # of what is not space
    max_character_run: int | None = Field(default=9, ge=1)  # one character, that often in a row
    min_distinct_word_share: float | None = Field(default=0.3, ge=0, le=1)  # asked from six words on
    boilerplate: tuple[str, ...] = BOILERPLATE  # whole captions, however cased and punctuated

    @field_validator("boilerplate")
    @classmethod
    def _normalise(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(normalised(phrase) for phrase in phrases)


@dataclass(frozen=True)
class Text:
    """A caption and what the rules count in it."""

    raw: str

    @cached_property
    def composed(self) -> str:
        """NFC, so that é is one character however it was written; one space for every run of white space."""
        return " ".join(unicodedata.normalize("NFC", self.raw).split())

    @cached_property
    def normalised(self) -> str:
        return normalised(self.raw)

    @cached_property
    def categories(self) -> Counter[str]:
        """Unicode category → characters."""
        return Counter(map(unicodedata.category, self.composed))

    def count(self, kinds: str) -> int:
        """Characters whose category begins with one of these letters: L letter, M mark, N digit, Z space."""
        return sum(number for category, number in self.categories.items() if category[0] in kinds)

    @cached_property
    def visible(self) -> int:
        """Characters less spaces and joiners, which scripts from Persian to emoji need."""
        return len(self.composed) - self.count("Z") - self.categories["Cf"]


def num_letters(text: Text) -> int:
    return text.count("L")


def num_characters(text: Text) -> int:
    """An ideograph or a Hangul syllable is as much as a short word: two of them can be a full caption."""
    counted = [c for c in text.composed if unicodedata.category(c)[0] in "LMN"]
    return len(counted) + sum(unicodedata.east_asian_width(c) in "WF" for c in counted)


def length(text: Text) -> int:
    return len(text.composed)


def num_html(text: Text) -> int:
    return len(_HTML.findall(text.composed))


def url_share(text: Text) -> float:
    return _share(_URL, text)


def file_name_share(text: Text) -> float:
    return _share(_FILE_NAME, text)


def digit_share(text: Text) -> float:
    return text.count("N") / max(1, text.count("LMN"))


def symbol_share(text: Text) -> float:
    """Of everything that is no letter, mark or digit: punctuation, emoji, control and unassigned characters."""
    return (text.visible - text.count("LMN")) / max(1, text.visible)


def longest_run(text: Text) -> int:
    return max((len(list(same)) for character, same in groupby(text.composed) if character != " "), default=0)


def distinct_word_share(text: Text) -> float:
    words = text.normalised.split()
    return len(set(words)) / len(words) if len(words) >= FEW_WORDS else 1.0


RULES = (
    Rule(Reason.CAPTION_NO_LETTERS, "min_letters", num_letters),
    Rule(Reason.CAPTION_TOO_SHORT, "min_characters", num_characters),
    Rule(Reason.CAPTION_TOO_LONG, "max_characters", length),
    Rule(Reason.CAPTION_HTML, "max_html", num_html),
    Rule(Reason.CAPTION_URL, "max_url_share", url_share),
    Rule(Reason.CAPTION_FILE_NAME, "max_file_name_share", file_name_share),
    Rule(Reason.CAPTION_DIGITS, "max_digit_share", digit_share),
    Rule(Reason.CAPTION_SYMBOLS, "max_symbol_share", symbol_share),
    Rule(Reason.CAPTION_REPETITION, "max_character_run", longest_run),
    Rule(Reason.CAPTION_REPETITION, "min_distinct_word_share", distinct_word_share),
)
"""In the order in which they are asked."""


def caption_reason(caption: str, rules: TextRules) -> Fault | None:
    """The first of RULES that does not hold, then boilerplate; None: a regular caption."""
    text = Text(caption)
    fault = first_fault(RULES, rules, text)
    if fault is None and text.normalised in rules.boilerplate:
        return Reason.CAPTION_BOILERPLATE, f"boilerplate: {text.normalised}"
    return fault


def _share(pattern: re.Pattern[str], text: Text) -> float:
    """Of the visible characters, those that the pattern finds. A long caption is judged by its start: the time that the
    patterns take grows with the square of the length."""
    start = text if len(text.composed) <= LOOKED_AT else Text(text.composed[:LOOKED_AT])
    return sum(len("".join(found.split())) for found in pattern.findall(start.composed)) / max(1, start.visible)
