"""docs/formats.md, printed from the schemas:    python -m pipeline.formats > docs/formats.md"""

import re
import sys
from pathlib import Path

import pyarrow as pa

from pipeline import schemas

WHERE = {
    "urls": "ingest_rows/data/{shard}-{attempt}.parquet",
    "downloaded": "download/data/{shard}-{attempt}.parquet, beside its tar",
    "embedded": "embed/data/{shard}-{attempt}.parquet, row-aligned with img_emb/ and text_emb/",
    "judged": "filter_judge/data/{shard}-{attempt}.parquet",
    "evaluation_pictures": "evaluation_sets/data/{shard}-{attempt}.parquet, row-aligned with img_emb/",
    "evaluation_hits": "filter_judge/data/hits_{shard}-{attempt}.parquet, where there are evaluation sets",
    "pairs": "corpus/data/metadata/metadata_{shard}-{attempt}.parquet, row-aligned with img_emb/ and text_emb/",
    "recall": "index_report/data/report_{shard}-{attempt}.parquet",
    "encoder_scores": "encoder_scores/data/scores_{shard}-{attempt}.parquet",
    "neighbor_keys": "neighbor_keys/data/keys_{shard}-{attempt}.arrow (Arrow IPC), in the order of the databases",
    "neighbors": "neighbors/data/neighbors_{corpus shard}_{shard}-{attempt}.parquet, aligned with that corpus shard",
    "fewshot_keys": "fewshot_keys/data/keys_{shard}-{attempt}.arrow (Arrow IPC), the train corpora's rows first",
    "fewshot": "fewshot/data/{selection}_{shots}_shots_{shard}-{attempt}.parquet, or paper_leaks_{shots}_shots_…",
    "band_sizes": "interleave_probe/data/band_sizes_{shard}-{attempt}.parquet",
    "cosines": "interleave_probe/data/cosines_{shard}-{attempt}.parquet",
    "interleave_keys": "interleave_keys/data/keys_{shard}-{attempt}.arrow (Arrow IPC), in the order of the corpora",
    "supports": "interleave_mine/data/supports_{shard}-{attempt}.parquet",
    "samples": "interleaved/data/samples_{shard}-{attempt}.parquet, beside the tar of their pictures",
    "band": "interleave_gate/data/band_{shard}-{attempt}.parquet",
    "figures": "interleave_report/data/figures_{shard}-{attempt}.parquet",
    "support_histograms": "interleave_report/data/histograms_{shard}-{attempt}.parquet",
    "support_uses": "interleave_report/data/uses_{shard}-{attempt}.parquet",
    "hubs": "interleave_report/data/hubs_{shard}-{attempt}.parquet",
    "pictures": "pictures/data/{shard}-{attempt}.parquet of a root of jobs/caption.py",
    "captions": "captions/data/{shard}-{attempt}.parquet of a root of jobs/caption.py, or what its --out names",
    "matches": "evaluation_matches/data/matches_{shard}-{attempt}.parquet",
    "answers": "evaluation_answers/data/answers_{shard}-{attempt}.parquet",
    "scores": "evaluation_scores/data/scores_{shard}-{attempt}.parquet",
    "rejects": "every stage: rejects/{shard}-{attempt}.parquet",
    "stats": "every stage: stats.parquet, one row a shard",
}


COLUMN = re.compile(r'pa\.field\("(\w+)".*\),  # (.*)')


def markdown() -> str:
    """Raises KeyError where a schema has no place in WHERE."""
    comments = _comments(Path(schemas.__file__).read_text(encoding="utf-8"))
    comments["JUDGED"] |= comments["PAIRS"]
    head = "# Formats\n\nPrinted from pipeline/schemas.py by `python -m pipeline.formats`. A run root holds:\n"
    tables = [_table(name, schema, comments[name.upper()]) for name, schema in schemas.EVERY_SCHEMA.items()]
    return "\n".join([head, *tables])


def _comments(source: str) -> dict[str, dict[str, str]]:
    """Schema → column → what the comment behind it says."""
    _, *parts = re.split(r"^([A-Z_]+) = ", source, flags=re.MULTILINE)
    return {name: dict(COLUMN.findall(block)) for name, block in zip(parts[::2], parts[1::2], strict=True)}


def _table(name: str, schema: pa.Schema, comments: dict[str, str]) -> str:
    rows = [f"| {f.name} | {f.type}{' or null' if f.nullable else ''} | {comments.get(f.name, '')} |" for f in schema]
    return "\n".join([f"## {name}\n", f"`{WHERE[name]}`\n", "| column | type | |", "| --- | --- | --- |", *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(markdown())
