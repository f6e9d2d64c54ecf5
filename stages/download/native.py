"""The engine `native`: local pictures are read, urls are fetched by curl."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stages.download.fetch import Fetched, fetch_all
from stages.download.local import read_local
from stages.download.request import FetchLimits


def bodies(rows: Sequence[Mapping[str, Any]], limits: FetchLimits) -> Iterator[Fetched]:
    """Of every row (schema URLS) one result, in any order."""
    yield from read_local(rows, limits.max_bytes)
    remote = [index for index, row in enumerate(rows) if row["local_path"] is None]
    for fetched in fetch_all([rows[index]["url"] for index in remote], limits):
        yield replace(fetched, index=remote[fetched.index])
