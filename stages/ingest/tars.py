"""Reader of webdataset tars: files of one key, one after another, are a sample. A mark is (offset of the sample's first
header, captions of it to skip)."""

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any, BinaryIO, cast

from pipeline.errors import InputError
from pipeline.recipe import Json
from stages.ingest.lists import ListFile, base_name, open_list
from stages.ingest.readers import Reader
from stages.ingest.records import Fault, Mark, Raw, encoded, malformed

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
HEAD_MEMBERS = 60


class Webdataset(Reader):
    """Captions are the list `captions` of key.json, or key.txt, or `caption` of key.json: the first that is there."""

    def check(self, file: ListFile) -> None:
        with open_list(file.paths[0]) as stream:
            kinds = {_kind(member) for member in islice(_members(stream, 0, file), HEAD_MEMBERS)}
        if not kinds.intersection(PICTURES):
            raise InputError(f"{file.name} holds no picture ({', '.join(PICTURES)}) at its head")
        if not kinds & {"txt", "json"}:
            raise InputError(f"{file.name} has no key.txt or key.json at its head, only {', '.join(sorted(kinds))}")

    def rows(self, file: ListFile, start: Mark | None = None) -> Iterator[tuple[Mark, Raw | Fault]]:
        offset, skip = start or (0, 0)
        with open_list(file.paths[0]) as stream:
            for key, members in groupby(_members(stream, offset, file), _key):
                sample = list(members)
                raws = _raws(f"{base_name(file.paths[0]).removesuffix('.tar')}/{key}", sample, stream)
                for number, raw in enumerate(raws):
                    if number >= skip:
                        yield [sample[0].offset, number], raw
                skip = 0


def _members(stream: BinaryIO, offset: int, file: ListFile) -> Iterator[tarfile.TarInfo]:
    """Plain files with a key, in order. Raises InputError where the tar breaks off; tarfile does not always tell."""
    stream.seek(offset)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while member := tar.next():
                cast(Any, tar).members.clear()  # or a large tar would fill the memory
                if member.isreg() and _key(member):
                    yield member
            stream.seek(tar.offset)
    except tarfile.TarError as error:
        raise InputError(f"{file.name} is no plain tar, or is damaged: {error}") from None
    if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise InputError(f"{file.name} breaks off at byte {tar.offset}: no end mark; fetch it again")


def _key(member: tarfile.TarInfo) -> str:
    folder, slash, base = member.name.rpartition("/")
    key = base.partition(".")[0]
    return key and folder + slash + key


def _kind(member: tarfile.TarInfo) -> str:
    return base_name(member.name).partition(".")[2].lower()


def _raws(image_id: str, sample: list[tarfile.TarInfo], stream: BinaryIO) -> list[Raw | Fault]:
    files = {_kind(member): member for member in reversed(sample)}
    picture = next((files[kind] for kind in PICTURES if kind in files), None)
    if picture is None:
        return [malformed(f"{image_id!r}: no picture among {sorted(files)!r}")]
    captions = _captions(files, stream)
    shared = encoded(image_id) if len(captions) > 1 else None
    place = Raw(None, image_id=shared, offset=picture.offset_data, size=picture.size)
    return [caption if isinstance(caption, Fault) else place._replace(caption=caption) for caption in captions]


def _captions(files: dict[str, tarfile.TarInfo], stream: BinaryIO) -> list[bytes | None | Fault]:
    try:
        info = json.loads(_content(files["json"], stream).decode("utf-8", "surrogateescape")) if "json" in files else {}
    except (ValueError, RecursionError) as error:
        return [malformed(f"key.json is not JSON: {error}")]
    if not isinstance(info, dict):
        return [malformed(f"key.json is {type(info).__name__}, not an object")]
    if isinstance(info.get("captions"), list):
        return [_text(caption) for caption in info["captions"] or [None]]
    return [_content(files["txt"], stream) if "txt" in files else _text(info.get("caption"))]


def _text(value: Json) -> bytes | None | Fault:
    if not isinstance(value, str | None):
        return malformed(f"a caption is {type(value).__name__}, not text")
    return None if value is None else encoded(value)


def _content(member: tarfile.TarInfo, stream: BinaryIO) -> bytes:
    stream.seek(member.offset_data)
    return stream.read(member.size)
