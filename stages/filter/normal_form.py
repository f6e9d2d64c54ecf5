"""A caption's words alone, in which captions are compared (Re-ViLM §3.3: c_j ≠ C; the normal form is ours)."""

import unicodedata

SPACE = 0x20


class _WordCharacters(dict[int, int]):
    """Code point → itself, or a space where it is neither letter, mark nor digit; filled as characters are met."""

    def __missing__(self, code: int) -> int:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else SPACE
        return self[code]


_WORD_CHARACTERS = _WordCharacters()
_ASCII = bytes(ord(chr(code).lower()) if chr(code).isalnum() else SPACE for code in range(128)) + bytes(128)


def normalised(caption: str) -> str:
    """NFKC, casefold, and one space for every run of characters that are neither letters, marks nor digits (Unicode L,
    M, N); trimmed. ASCII, which NFKC leaves alone and casefold only lowers, takes 1 µs, other text 6."""
    if caption.isascii():
        return b" ".join(caption.encode().translate(_ASCII).split()).decode()
    folded = unicodedata.normalize("NFKC", caption).casefold()
    return " ".join(folded.translate(_WORD_CHARACTERS).split())
