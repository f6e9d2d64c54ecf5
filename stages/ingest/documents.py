"""Readers of lists that are one JSON document. A mark is a row number.

The one form that is not streamed: every shard reads its document whole, and holds it in memory."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from pipeline.errors import InputError
from pipeline.recipe import Json
from stages.ingest.lists import ListFile, open_list
from stages.ingest.readers import Reader
from stages.ingest.records import Fault, Mark, Raw, malformed, raw_from_json

HEAD_BYTES = 1 << 16
Values = Mapping[str, Json]  # field of a Raw → what the document has for it
KEY = re.compile(rb'"(\w+)"\s*:')


@dataclass(frozen=True)
class Document(Reader):
    """arrays: what the top level must hold. signs: keys of which the head of such a document shows at least one."""

    arrays: tuple[str, ...]
    signs: frozenset[str]
    pairs: Callable[[dict[str, list[Json]], ListFile], Iterator[Values | Fault]]

    def check(self, file: ListFile) -> None:
        with open_list(file.paths[0]) as stream:
            head = stream.read(HEAD_BYTES)
        if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            raise InputError(f"{file.name} should be a JSON object, but starts with {head[:40]!r}")
        found = sorted({key.decode() for key in KEY.findall(head)})
        if not self.signs & set(found):
            raise InputError(
                f"{file.name} should hold {' and '.join(self.arrays)}, but starts with {', '.join(found)[:200]}"
            )

    def rows(self, file: ListFile, start: Mark | None = None) -> Iterator[tuple[Mark, Raw | Fault]]:
        first = start[0] if start else 0
        try:
            pairs = self.pairs(self._load(file), file)
            for row, values in enumerate(islice(pairs, first, None), first):
                yield [row], values if isinstance(values, Fault) else raw_from_json(values)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file.name}: an entry is not of this form ({type(error).__name__}: {error})") from None

    def _load(self, file: ListFile) -> dict[str, list[Json]]:
        with open_list(file.paths[0]) as stream:
            text = stream.read().decode("utf-8-sig", "surrogateescape")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file.name} is not JSON: {error}") from None
        lacking = [key for key in self.arrays if not isinstance(document.get(key), list)]
        if lacking:
            raise InputError(f"{file.name} has no array {' and no array '.join(lacking)}; it has {', '.join(document)}")
        return {key: document[key] for key in self.arrays}


def sbu_pairs(document: dict[str, list[Json]], file: ListFile) -> Iterator[Values | Fault]:
    """Parallel arrays. Source: Ordonez, Kulkarni, Berg 2011, the captioned photo data set's JSON."""
    urls, captions = document["image_urls"], document["captions"]
    if len(urls) != len(captions):
        raise InputError(f"{file.name}: {len(urls)} image_urls and {len(captions)} captions; they should be parallel")
    for url, caption in zip(urls, captions, strict=True):
        yield {"url": url, "caption": caption}


def coco_pairs(document: dict[str, list[Json]], file: ListFile) -> Iterator[Values | Fault]:
    """A row an annotation, and behind them a row without a caption for every image that has none, which the checks
    reject."""
    names = {image["id"]: image["file_name"] for image in document["images"]}
    for annotation in document["annotations"]:
        image, caption = annotation.get("image_id"), annotation.get("caption")
        if isinstance(names.get(image), str):
            yield {"caption": caption, "image_id": str(image), "path": names[image]}
        else:
            yield malformed(f"image {image!r} is not among the images, or has no file name")
    captioned = {annotation.get("image_id") for annotation in document["annotations"]}
    for image, name in names.items():
        if image not in captioned and isinstance(name, str):
            yield {"caption": None, "image_id": str(image), "path": name}


def karpathy_pairs(document: dict[str, list[Json]], file: ListFile) -> Iterator[Values | Fault]:
    """A row a sentence, of the split asked for; a picture without sentences is one row, which the checks reject."""
    for image in document["images"]:
        if file.split in (None, image["split"]):
            name = "/".join(filter(None, [image.get("filepath"), image["filename"]]))
            for sentence in image["sentences"] or [{"raw": None}]:
                yield {"caption": sentence["raw"], "image_id": name, "path": name}
