"""Lists that people keep by hand, an entry a line, and the domains that some of them name."""

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import RecipeError

DOMAIN = re.compile(r"[\w-]+(?:\.[\w-]+)+")  # "*.example.org" would be taken for a name, and match nothing
_HOST = re.compile(r"[a-z]+://(?:[^/?#]*@)?([^/?#:]+)", re.I)


def entries_of(given: Iterable[str] | str, setting: str) -> list[str]:
    """given: the entries, or the path of a text file with one a line (blank lines and # comments are skipped).

    Raises RecipeError where the file cannot be read; setting: where the recipe names it.
    """
    if not isinstance(given, str):
        return list(given)
    try:
        lines = Path(given).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise RecipeError(f"{setting}: {given} is no text file that can be read: {error}") from None
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]


def domains_of(url: str | None) -> list[str]:
    """The url's host in lower case and every domain above it."""
    found = _HOST.match(url or "")
    parts = found.group(1).casefold().rstrip(".").split(".") if found else []
    return [".".join(parts[level:]) for level in range(len(parts))]
