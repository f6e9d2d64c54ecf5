"""Two captions are the same exactly where the definition says so, whatever they are written in."""

import random
import sys
import unicodedata

import pytest

from stages.neighbors.keys import comparable


def definition(caption: str) -> bytes:
    """The slow obvious way."""
    folded = unicodedata.normalize("NFKC", caption).casefold()
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)
    words = " ".join(part for part in kept.split(" ") if part)
    return (words or caption).encode()


def test_every_character_of_unicode_is_compared_by_the_definition() -> None:
    for code in range(sys.maxunicode + 1):
        if not 0xD800 <= code < 0xE000:
            assert comparable(f"a{chr(code)}B") == definition(f"a{chr(code)}B"), hex(code)


@pytest.mark.parametrize("alphabet", ["aB3 _-.\t\n\x00", "aéß ı İ.ſ①ﬁ", "的 ㊀か゛①、", "🎉👍🏽\u200d\ufe0f !a"])
def test_random_texts_are_compared_by_the_definition(alphabet: str) -> None:
    rng = random.Random(3)
    for _ in range(2000):
        text = "".join(rng.choices(alphabet, k=rng.randrange(12)))
        assert comparable(text) == definition(text), ascii(text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A red ball.", "a RED, ball", True),
        ("Straße", "STRASSE", True),
        ("\ufb01re", "fire", True),
        ("a red-ball", "a redball", False),
        ("🎉", "🎉", True),
        ("🎉", "🎈", False),
        ("!!", "!", False),
        ("🎉 party", "party 🎈", True),
    ],
)
def test_examples(one: str, other: str, *, same: bool) -> None:
    assert (comparable(one) == comparable(other)) is same
