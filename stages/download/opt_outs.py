"""Who asked beforehand not to be fetched from: domains with their subdomains, and single urls."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.checksums import sha256_of_json
from pipeline.entries import DOMAIN, domains_of, entries_of
from pipeline.errors import RecipeError
from stages.download.addresses import Target, parse_url


@dataclass(frozen=True)
class OptOuts:
    entries: frozenset[str] = frozenset()

    @classmethod
    def load(cls, given: Iterable[str] | str) -> "OptOuts":
        """given: the entries, or the path of a text file with one a line.

        Raises RecipeError where the file cannot be read, or naming the first entry that is neither url nor domain.
        """
        return cls(frozenset(_entry(line) for line in entries_of(given, "download.opt_out")))

    @property
    def checksum(self) -> str:
        return sha256_of_json(sorted(self.entries))

    def entry(self, target: Target) -> str | None:
        """The entry that a request falls under."""
        if not self.entries:
            return None
        return next((name for name in (target.url, *domains_of(target.url)) if name in self.entries), None)


def _entry(line: str) -> str:
    """As `parse_url` would write it in a request: hosts in lower case and ASCII."""
    is_url = "://" in line
    if not (is_url or DOMAIN.fullmatch(line)):
        raise RecipeError(
            f"download.opt_out: {line!r} is neither a url (https://…) nor a domain (example.org, with all below it)"
        )
    try:
        url = parse_url(line if is_url else f"http://{line}/").url
    except ValueError as error:
        raise RecipeError(f"download.opt_out: {line!r}: {error}") from None
    return url if is_url else domains_of(url)[0]
