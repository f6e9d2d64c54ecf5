"""Readers of text lists. A row ends at \\n (less a \\r before it) and nowhere else; only a csv cell in
quotes holds one. A mark is the offset of the row's first byte, after decompression."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from pipeline.errors import InputError
from pipeline.reasons import Reason
from stages.ingest.lists import ListFile, open_list
from stages.ingest.records import (
    MAX_CAPTION_BYTES,
    Fault,
    Mark,
    Raw,
    encoded,
    malformed,
    raw_from_json,
    raw_from_texts,
)

BOM = b"\xef\xbb\xbf"
HEAD_ROWS = 20  # that a check looks at
MAX_CSV_CELL = 131_072  # characters; a quote that is never closed costs the rows of so much text, not of the whole list


class Reader(ABC):
    @abstractmethod
    def check(self, file: ListFile) -> None:
        """Look at the head. Raises InputError, naming the file and what was found, where it cannot be such a list."""

    @abstractmethod
    def rows(self, file: ListFile, start: Mark | None = None) -> Iterator[tuple[Mark, Raw | Fault]]:
        """Every row from a mark on, with its own mark. Raises InputError where the file itself is at fault."""

    def count(self, file: ListFile, every: int) -> tuple[int, list[Mark]]:
        """The number of rows, and the marks of rows 0, every, 2 · every …"""
        rows, marks = 0, []
        for mark, _ in self.rows(file):
            if rows % every == 0:
                marks.append(mark)
            rows += 1
        return rows, marks


@dataclass(frozen=True)
class Tsv(Reader):
    """Cells between tabs, quotes mean nothing. header: the columns of a list that does not name them itself."""

    header: tuple[str, ...] | None = None

    def check(self, file: ListFile) -> None:
        url = cells_of(self._names(file), file)["url"]
        check_urls(file, self, f"column {url + 1}")

    def rows(self, file: ListFile, start: Mark | None = None) -> Iterator[tuple[Mark, Raw | Fault]]:
        names = self._names(file)
        places = cells_of(names, file)
        first = 0 if start or self.header else 1
        for offset, line in islice(lines(file.paths[0], start[0] if start else 0), first, None):
            yield [offset], raw_from_cells(line.split(b"\t", len(names)), len(names), places)

    def _names(self, file: ListFile) -> Sequence[str]:
        return self.header or next(lines(file.paths[0]), (0, b""))[1].decode("utf-8", "replace").split("\t")


class Csv(Reader):
    """Commas, a header, quotes as in RFC 4180."""

    def check(self, file: ListFile) -> None:
        check_urls(file, self, f"column {file.columns['url']!r}")

    def rows(self, file: ListFile, start: Mark | None = None) -> Iterator[tuple[Mark, Raw | Fault]]:
        with open_list(file.paths[0]) as stream:
            records = CsvRecords(stream)
            _, names = next(records, (0, []))
            if isinstance(names, Fault):
                raise InputError(f"{file.name}: the header cannot be read ({names.detail})")
            places = cells_of(names, file)
            if start:
                records.seek(start[0])
            for offset, cells in records:
                if isinstance(cells, Fault):
                    yield [offset], cells
                else:
                    yield [offset], raw_from_cells([encoded(cell) for cell in cells], len(names), places)


class CsvRecords:
    """Iterator of (offset, cells), which feeds csv.reader and knows how far that has read."""

    def __init__(self, stream: BinaryIO) -> None:
        csv.field_size_limit(MAX_CSV_CELL)  # for the whole process; rows must not depend on who else set it
        self._stream = stream
        self._offset = 0
        self._reader = csv.reader(iter(self._read_line, ""), strict=True)

    def seek(self, offset: int) -> None:
        self._stream.seek(offset)
        self._offset = offset

    def __iter__(self) -> "CsvRecords":
        return self

    def __next__(self) -> tuple[int, list[str] | Fault]:
        start = self._offset
        try:
            return start, next(self._reader)
        except csv.Error as error:
            long = self._offset - start > MAX_CAPTION_BYTES
            return start, Fault(Reason.OVERSIZED_CAPTION if long else Reason.MALFORMED_ROW, str(error))

    def _read_line(self) -> str:
        line = self._stream.readline()
        start, self._offset = self._offset, self._offset + len(line)
        return (line if start else line.removeprefix(BOM)).decode("utf-8", "surrogateescape")


class JsonLines(Reader):
    """A JSON object a line."""

    def check(self, file: ListFile) -> None:
        check_urls(file, self, f"{file.columns['url']!r}")

    def rows(self, file: ListFile, start: Mark | None = None) -> Iterator[tuple[Mark, Raw | Fault]]:
        for offset, line in lines(file.paths[0], start[0] if start else 0):
            yield [offset], self._parse(line, file.columns)

    def _parse(self, line: bytes, columns: Mapping[str, str]) -> Raw | Fault:
        try:
            values = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            return malformed(f"not JSON: {error}")
        if not isinstance(values, dict):
            return malformed(f"{type(values).__name__}, not an object")
        return raw_from_json({field: values.get(column) for field, column in columns.items()})


class AlignedLines(Reader):
    """Two files: line n of the first is the url, of the second the caption."""

    def check(self, file: ListFile) -> None:
        check_urls(file, self, file.names[0])

    def rows(self, file: ListFile, start: Mark | None = None) -> Iterator[tuple[Mark, Raw | Fault]]:
        urls, captions = (lines(path, offset) for path, offset in zip(file.paths, start or (0, 0), strict=True))
        try:
            for (at, url), (caption_at, caption) in zip(urls, captions, strict=True):
                yield [at, caption_at], Raw(caption, url)
        except ValueError:
            raise InputError(f"{file.name}: the two files have different numbers of lines") from None


def lines(path: str, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset, line without its end) from a line's offset on. A byte order mark belongs to no line."""
    with open_list(path) as stream:
        stream.seek(start)
        offset = start
        for line in stream:
            text = line.removesuffix(b"\n").removesuffix(b"\r")
            yield offset, text if offset else text.removeprefix(BOM)
            offset += len(line)


def cells_of(names: Sequence[str], file: ListFile) -> dict[str, int]:
    """Field → index of its cell. Raises InputError where the header lacks a column."""
    require_columns(names, file)
    return {field: names.index(column) for field, column in file.columns.items() if column in names}


def require_columns(names: Sequence[str], file: ListFile) -> None:
    missing = [c for field, c in file.columns.items() if c not in names and field not in file.optional]
    if missing:
        listed = ", ".join(names)[:200]
        raise InputError(f"{file.name} has no column {' and no column '.join(missing)}; its columns are {listed}")


def raw_from_cells(cells: Sequence[bytes], width: int, places: Mapping[str, int]) -> Raw | Fault:
    if len(cells) != width:
        return malformed(f"{len(cells) if len(cells) < width else 'more'} columns instead of {width}")
    return raw_from_texts({field: cells[place] for field, place in places.items()})


def check_urls(file: ListFile, reader: Reader, column: str) -> None:
    """Raises InputError where most of the first rows have no url in its place."""
    head = [row for _, row in islice(reader.rows(file), HEAD_ROWS)]
    strange = [(n, row) for n, row in enumerate(head, 1) if isinstance(row, Fault) or not looks_like_url(row.url)]
    if 2 * len(strange) <= len(head):
        return
    number, row = strange[0]
    if isinstance(row, Fault):
        raise InputError(f"{file.name}: row {number} is no row of this form: {row.detail}")
    held = "nothing" if row.url is None else f'"{row.url.decode("utf-8", "replace")[:80]}"'
    raise InputError(f"{file.name}: {column} should be urls, but row {number} holds {held}")


def looks_like_url(text: bytes | None) -> bool:
    return text is not None and text.strip().lower().startswith((b"http://", b"https://"))
