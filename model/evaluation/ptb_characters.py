"""The classes of characters of Stanford's PTBTokenizer 3.4.1, as the program itself tells them apart.

Seen by giving it every character of the Basic Multilingual Plane in a word, between digits, alone and twice. What is in
no class here, and all above that plane (emoji, rare ideographs), vanishes and separates what stands beside it.
Ranges are code points in hexadecimal.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache

# Python knows them as letters or digits, the program is older and drops them.
LATER_LETTERS = """
37f 528-52f 560 588 5ef 860-86a 870-887 889-88e 8a1 8ad-8c9 978 980 9fc af9 c34 c5a c5d c80 cdd d04 d54-d56 d5f de6-def
e86 e89 e8c e8e-e93 e98 ea0 ea8-ea9 eac 13f5 13f8-13fd 16f1-16f8 170d 171f 1878 191d-191e 19b0-19c0 19c8-19c9 1b4c
1c80-1c88 1c90-1cba 1cbd-1cbf 1cf2-1cf3 1cfa 2c2f 2c5f 312e-312f 31bb-31bf 4db6-4dbf 9fcd-9fff a698-a69d a78f a794-a79f
a7ab-a7ca a7d0-a7d1 a7d3 a7d5-a7d9 a7f2-a7f7 a8fd-a8fe a9e0-a9e4 a9e6-a9fe aa7e-aa7f ab30-ab5a ab5c-ab69 ab70-abbf"""
FORMER_LETTERS = "1885-1886"  # marks since
# Marks and signs that stand in words as letters do, though not in numbers. All other marks separate.
LETTER_MARKS = """
2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf 5c1-5c2 5c4-5c5 5c7 615-61a
64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0 7eb-7f3 900-903 93c 93e-94e 951-955 962-963 981-983 9bc
9be-9c4 9c7-9c8 9cb-9cd 9d7 9e2-9e3 a01-a03 a3c a3e-a4f a81-a83 abc abe-acf b82 bbe-bc2 bc6-bc8 bca-bcd c01-c03 c3e-c56
d3e-d44 d46-d48 e31 e34-e3a e47-e4e eb1 eb4-ebc ec8-ecd"""
# A token each, wherever they stand.
SYMBOLS = """
24-26 2b 2f 3b 3d 40 5c 5e-5f 7c 7e a1 a5-a9 ac ae-b1 b4 b6-b8 bf d7 f7 37e 387 589 5be 5c0 5c3 5c6 5f3-5f4 600-603
606-60c 614 61b 61e-61f 66a 66d 6d4 700-70d 7f6-7f8 964-965 e3f e4f 1fbd 2016-2017 2020-2023 2030-2038 203b 203e-2042
2044 207a-207e 208a-208e 20a4 2100-2101 2103-2106 2108-2109 2114 2116-2118 211e-2123 2125 2127 2129 212e 213a-213b
2140-2144 214a-214d 214f 2155-215e 2190-2bff 3001-3002 3012 30fb ff01-ff0f ff1a-ff20 ff3b-ff40 ff5b-ff65 ffe0-ffe1
ffe5-ffe6"""
# A token each run.
SUPERSCRIPTS = "b2-b3 b9 2070 2074-2079"
SUBSCRIPTS = "2080-2089"
SOFT_HYPHEN = "\u00ad"  # stands in words and numbers, and is left out of the token


def character_class(*tables: str) -> str:
    """The inside of a character class of a regular expression."""
    return "".join(f"{_escaped(first)}-{_escaped(last)}" for table in tables for first, last in _bounds(table))


@cache
def letters() -> str:
    return character_class(_ranges(_of_category("L")), FORMER_LETTERS)


@cache
def digits() -> str:
    return character_class(_ranges(_of_category("Nd")))


def _of_category(category: str) -> Iterator[int]:
    later = {code for first, last in _bounds(LATER_LETTERS) for code in range(first, last + 1)}
    return (
        code for code in range(0x10000) if unicodedata.category(chr(code)).startswith(category) and code not in later
    )


def _bounds(table: str) -> Iterator[tuple[int, int]]:
    for each in table.split():
        first, _, last = each.partition("-")
        yield int(first, 16), int(last or first, 16)


def _ranges(codes: Iterable[int]) -> str:
    """codes: ascending."""
    bounds: list[list[int]] = []
    for code in codes:
        if bounds and bounds[-1][1] == code - 1:
            bounds[-1][1] = code
        else:
            bounds.append([code, code])
    return " ".join(f"{first:x}-{last:x}" for first, last in bounds)


def _escaped(code: int) -> str:
    return f"\\u{code:04x}"
