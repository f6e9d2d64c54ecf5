"""Pairs that somebody asked to remove: by pair id, url, domain or checksum."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.checksums import sha256_of_json
from pipeline.entries import DOMAIN, domains_of, entries_of
from pipeline.errors import RecipeError
from pipeline.reasons import Reason
from stages.filter.rules import Fault, Pair

_PAIR_ID = re.compile(r"[a-z0-9_-]+-[0-9]{10}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Exclusions:
    """Entries of all kinds in one set: no entry of one kind can look like one of another."""

    entries: frozenset[str]

    @classmethod
    def load(cls, exclude: Iterable[str] | str) -> "Exclusions":
        """exclude: the entries, or the path of a text file with one a line (blank lines and # comments are skipped).

        Raises RecipeError naming the first entry that is none of the four kinds.
        """
        return cls(frozenset(_entry(line) for line in entries_of(exclude, "filter.exclude")))

    @property
    def checksum(self) -> str:
        return sha256_of_json(sorted(self.entries))

    def fault(self, pair: Pair) -> Fault | None:
        """A domain also means its subdomains."""
        names = [pair["pair_id"], pair["sha256"], pair["stored_sha256"], pair["url"], *domains_of(pair["url"])]
        found = next((name for name in names if name in self.entries), None)
        return None if found is None else (Reason.REMOVED_ON_REQUEST, f"exclude: {found}")


def _entry(line: str) -> str:
    if "://" in line or _PAIR_ID.fullmatch(line):
        return line
    lowered = line.casefold()
    if _SHA256.fullmatch(lowered) or DOMAIN.fullmatch(lowered):
        return lowered
    raise RecipeError(
        f"filter.exclude: {line!r} is no pair id (cc3m-0000000042), url (https://…), domain (example.org) or sha256"
    )
