"""The engine `img2dataset`: that package's own resizer, and for trusted lists its own fetching too, inside our shard.

Its resizer takes a picture as it lies in the file (EXIF orientation is not applied), keeps gray pictures gray and, for
each picture, sends what the process prints meanwhile to nowhere. Its fetching opens any scheme that urllib knows, local
files among them, and connects to any address. Written against 1.47.0; the module needs the extra `img2dataset`.
"""

import io
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from pipeline.reasons import Reason
from stages.download.answers import OPT_OUT_DIRECTIVES, reason_of_status
from stages.download.fetch import Fetched
from stages.download.images import ImageRule, Refused, Stored, judge
from stages.download.local import read_local
from stages.download.recipe import DownloadRecipe
from stages.download.request import BOT

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks a package index for news

_STATUS = re.compile(r"HTTP Error (\d{3})")
_TEXTS = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"X-Robots-Tag", Reason.OPTED_OUT),
        (r"would lead to an infinite loop", Reason.TOO_MANY_REDIRECTS),
        (r"redirection to url .* is not allowed", Reason.BAD_REDIRECT),
        (r"unknown url type|no host given|can't contain control|nonnumeric port|codec can't encode", Reason.BAD_URL),
        (r"certificate|ssl|tls", Reason.TLS),
        (r"timed out", Reason.DEADLINE),
        (r"name or service|name resolution|nodename|address associated with hostname|getaddrinfo", Reason.DNS),
        (r"no such file|is a directory|not on local host", Reason.MISSING_FILE),
    )
)
"""urllib's texts; the first that fits. What fits none broke the connection, as with curl."""


def bodies(rows: Sequence[Mapping[str, Any]], recipe: DownloadRecipe) -> Iterator[Fetched]:
    """Of every row (schema URLS) one result, in any order: local pictures are read, urls fetched by img2dataset."""
    yield from read_local(rows, recipe.max_bytes)
    remote = ((index, row["url"]) for index, row in enumerate(rows) if row["local_path"] is None)
    with ThreadPoolExecutor(recipe.connections) as threads:

        def started(number: int) -> set[Any]:
            return {threads.submit(_fetch, index, url, recipe) for index, url in islice(remote, number)}

        running = started(2 * recipe.connections)  # bounds the bodies that wait
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            running |= started(len(ended))
            for future in ended:
                yield future.result()


def _fetch(index: int, url: str, recipe: DownloadRecipe) -> Fetched:
    from img2dataset.downloader import download_image_with_retry

    begun = time.monotonic()
    _, stream, text = download_image_with_retry(
        (index, url),
        timeout=recipe.deadline_s,  # of each socket operation
        retries=recipe.retries,
        user_agent_token=BOT,
        disallowed_header_directives=OPT_OUT_DIRECTIVES if recipe.respect_opt_out else None,
    )
    fetch_ms = 1000 * (time.monotonic() - begun)
    if stream is None:
        status = _STATUS.search(text)
        return Fetched(index, None, reason_of_text(text), text, int(status[1]) if status else None, fetch_ms)
    body = stream.getvalue()
    if not body:
        return Fetched(index, None, Reason.EMPTY_BODY, "no bytes", None, fetch_ms)
    return Fetched(index, body, None, "", None, fetch_ms)


def reason_of_text(text: str) -> Reason:
    """Of what urllib said when no picture came."""
    for pattern, reason in _TEXTS:
        if pattern.search(text):
            return reason
    if status := _STATUS.search(text):
        return reason_of_status(int(status[1])) or Reason.HTTP_UNEXPECTED
    return Reason.CONNECTION


@dataclass(frozen=True)
class Maker:
    """Makes stored pictures by img2dataset's resizer; `max_pixels` of the rule is for `make_checked` alone."""

    rule: ImageRule

    def make_checked(self, body: bytes) -> Stored | Refused:
        """Refuses first what the native engine refuses by the header."""
        return judge(body, self.rule) or self.make(body)

    def make(self, body: bytes) -> Stored | Refused:
        jpeg, width, height, original_width, original_height, text = self._resizer(io.BytesIO(body))
        if text is None:
            return Stored.of(jpeg, (width, height), body=body, body_size=(original_width, original_height))
        refused = judge(body, self.rule)
        return Refused(refused.reason if refused else Reason.CORRUPT_IMAGE, text)

    @cached_property
    def _resizer(self) -> Any:
        from img2dataset.resizer import Resizer

        return Resizer(
            image_size=self.rule.size_px,
            resize_mode="keep_ratio",
            resize_only_if_bigger=True,
            encode_quality=self.rule.jpeg_quality,
        )
