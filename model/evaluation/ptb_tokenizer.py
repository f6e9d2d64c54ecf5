"""The tokens that published caption scores are made of: Stanford's PTBTokenizer 3.4.1 with -preserveLines -lowerCase,
without the 17 punctuation tokens that pycocoevalcap drops.

    A man's dog isn't running (fast) on 5th St.  →  a man 's dog is n't running -lrb- fast -rrb- on 5th st.

Brackets stay: pycocoevalcap's list has them in capitals. Some tokens hold a no-break space, `3 1/2` for one.

A caption is one caption here. pycocoevalcap gives the program one line each, and with it three faults: a caption with a
line end other than \\n (\\r, \\v, \\f, U+2028, U+2029) counts as two, and every later caption of the set is scored as
its neighbour; a caption's last full stop may hang on the next caption's first word (`P.` before `The`, `no.` before a
digit); and the last caption of a file is read without an end. Here every line end is a blank, and every caption has an
end of its own.
"""

import re
from functools import lru_cache

from model.evaluation.ptb_characters import SOFT_HYPHEN, SYMBOLS, character_class
from model.evaluation.ptb_rules import across_blanks, compiled

DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
_LINE_END = re.compile("[\n\r\v\f\u0085\u2028\u2029]")
_BLANKS = " \t\u00a0\n"
_KEPT_SIGN = re.compile(f"[{character_class(SYMBOLS)}]")
_WRITTEN = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "¢": "cents", "£": "#", "\u0080": "$", "\u00a4": "$", "\u20a0": "$", "€": "$",
    "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
    "&lt;": "<", "&gt;": ">", "&amp;": "&",
}  # fmt: skip
_PLAIN_QUOTES = str.maketrans(
    {"\u2018": "`", "\u201b": "`", "\u2039": "`", "\u0091": "`", "\u201c": "``", "«": "``", "\u0093": "``"}
    | {"\u2019": "'", "\u203a": "'", "\u0092": "'", "\u201d": "''", "»": "''", "\u0094": "''"}
)
_PLAIN_BRACKETS = str.maketrans({"(": "-lrb-", ")": "-rrb-"})
_QUOTED = {"quotes", "n't", "'s", "short 's"}  # rules whose tokens are written with plain quotes
_BRACKETED = {"phone", "smiley", "face"}


def ptb_tokens(caption: str) -> list[str]:
    """Lower-case tokens without punctuation; none of an empty caption."""
    line = _LINE_END.sub(" ", caption)
    if across_blanks().search(f"{line}\n"):
        return _scanned(line)
    return [token for piece in line.replace("\t", " ").split(" ") if piece for token in _of_piece(piece)]


@lru_cache(maxsize=1 << 16)
def _of_piece(piece: str) -> tuple[str, ...]:
    """Of what stands between two blanks, where no token reaches across: captions repeat their words."""
    return tuple(_scanned(piece))


def _scanned(line: str) -> list[str]:
    line += "\n"  # which rules read as the end
    tokens, position = [], 0
    while position < len(line):
        if line[position] in _BLANKS:
            position += 1
            continue
        rule, found = _furthest(line, position)
        token = _written(rule, found[found.lastindex or 0])
        if token and token not in DROPPED:
            tokens.append(token)
        position = found.end(found.lastindex or 0)
    return tokens


def _furthest(line: str, position: int) -> tuple[str, re.Match[str]]:
    best: tuple[str, re.Match[str]] | None = None
    for rule, pattern in compiled():
        found = pattern.match(line, position)
        if found and (best is None or found.end() > best[1].end()):
            best = rule, found
    assert best is not None, "the last rule takes any character"
    return best


def _written(rule: str, token: str) -> str:
    """As the program writes it, in lower case; "" for what it leaves out."""
    if rule in ("sign", "known entity"):
        return _WRITTEN.get(token.lower(), token.lower() if _KEPT_SIGN.fullmatch(token) else "")
    if rule == "ellipsis" or (rule == "dashes" and len(token) < 5):
        return ""
    if rule in _QUOTED:
        token = token.replace("&apos;", "'").translate(_PLAIN_QUOTES)
    if rule in _BRACKETED:
        token = token.translate(_PLAIN_BRACKETS)
    return token.lower().replace(SOFT_HYPHEN, "").replace(" ", "\u00a0")
