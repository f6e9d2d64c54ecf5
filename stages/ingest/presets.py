"""The presets: what a source's files look like, a table with one entry a preset."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import InputError
from stages.ingest.documents import Document, coco_pairs, karpathy_pairs, sbu_pairs
from stages.ingest.lists import ListFile
from stages.ingest.parquet import Parquet
from stages.ingest.readers import AlignedLines, Csv, JsonLines, Reader, Tsv
from stages.ingest.tars import Webdataset

ANY = ""
PAIR = {"url": "url", "caption": "caption"}


@dataclass(frozen=True)
class Preset:
    form: str  # for messages: what the files are
    readers: Mapping[str, Reader]  # by suffix of the file's name, less `.gz`; ANY: whatever the name
    columns: Mapping[str, str] = field(default_factory=dict)  # field → column; nsfw and watermark may be missing
    parts: tuple[str, ...] = ()  # words in the names of files that are one list together
    settings: frozenset[str] = frozenset()  # of a source, besides name, preset and files
    version: int = 1  # raised when the same list gives other rows

    def reader(self, file: ListFile) -> Reader:
        """Raises InputError where the name tells that the file is something else."""
        found = self.readers.get(file.suffix) or self.readers.get(ANY)
        if found is None:
            raise InputError(f"{file.name} should end in {', '.join(self.readers)}")
        return found


PRESETS: Mapping[str, Preset] = {
    "cc3m": Preset("TSV (caption, url), no header", {ANY: Tsv(("caption", "url"))}, PAIR),
    "cc12m": Preset("TSV (url, caption), no header", {ANY: Tsv(("url", "caption"))}, PAIR),
    "sbu": Preset(
        "JSON of parallel arrays image_urls and captions",
        {ANY: Document(("image_urls", "captions"), frozenset({"image_urls", "captions", "user_ids"}), sbu_pairs)},
    ),
    "sbu_text": Preset(
        "two texts, one named …url… and one …caption…, line n of both a pair",
        {ANY: AlignedLines()},
        parts=("url", "caption"),
    ),
    "coyo": Preset(
        "COYO-700M's parquet",
        {".parquet": Parquet()},
        {
            "url": "url",
            "caption": "text",
            "width": "width",
            "height": "height",
            "clip_score": "clip_similarity_vitl14",
            "nsfw": "nsfw_score_opennsfw2",
            "watermark": "watermark_score",
            "aesthetic": "aesthetic_score_laion_v2",
        },
        settings=frozenset({"columns", "prefilter"}),
    ),
    "laion": Preset(
        "LAION's parquet",
        {".parquet": Parquet()},
        {
            "url": "URL",
            "caption": "TEXT",
            "width": "WIDTH",
            "height": "HEIGHT",
            "clip_score": "similarity",
            "nsfw": "punsafe",
            "watermark": "pwatermark",
            "aesthetic": "AESTHETIC_SCORE",
        },
        settings=frozenset({"columns", "prefilter"}),
    ),
    "table": Preset(
        "csv, tsv, jsonl (each also .gz) or parquet with named columns",
        {".csv": Csv(), ".tsv": Tsv(), ".jsonl": JsonLines(), ".parquet": Parquet()},
        PAIR,
        settings=frozenset({"columns", "prefilter"}),
    ),
    "coco": Preset(
        "COCO captions JSON with images and annotations",
        {ANY: Document(("images", "annotations"), frozenset({"annotations", "coco_url", "file_name"}), coco_pairs)},
        settings=frozenset({"folder"}),
        version=2,
    ),
    "karpathy": Preset(
        "Karpathy's JSON, images with sentences",
        {ANY: Document(("images",), frozenset({"sentences", "sentids"}), karpathy_pairs)},
        settings=frozenset({"folder", "split"}),
    ),
    "webdataset": Preset("tars of key.jpg with key.txt or key.json", {".tar": Webdataset()}),
}
