"""One shard through the towers: decoding beside the model, captions prepared meanwhile."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import ftfy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from pipeline.commits import Committed
from pipeline.reasons import Reason
from pipeline.schemas import EMBEDDED
from pipeline.stage import Counts
from pipeline.writer import ShardWriter
from stages.embed.decoding import Decoder, Faults, Stored
from stages.embed.towers import Towers, Vectors

Seconds = dict[str, float]

_COLUMNS = ("key", "caption", "reason", "width", "height", "image_offset", "image_bytes")


def embed_shard(download: Committed, out: ShardWriter, towers: Towers, batch_size: int, decode_threads: int) -> Counts:
    """Rows keep the order that they have in `download`."""
    rows = download.table("pairs", _COLUMNS)
    rows = rows.filter(pc.is_null(rows["reason"]))
    seconds: Seconds = defaultdict(float)
    with ThreadPoolExecutor(1) as beside:
        prepared = beside.submit(_prepare_captions, rows["caption"].to_pylist(), towers)
        images, faults = _encode_pictures(download, rows, towers, batch_size, decode_threads, seconds)
        captions, tokens = prepared.result()
    kept = np.array([row for row in range(rows.num_rows) if row not in faults], np.int64)
    with _measured(seconds, "model_s"):
        texts = towers.encode_tokens(tokens[kept], batch_size)
    for row, fault in faults.items():
        out.reject(rows["key"][row].as_py(), Reason.CORRUPT_IMAGE, fault)
    _write(out, rows["key"].take(kept), captions.take(kept), images[kept], texts)
    return Counts(rows_in=rows.num_rows, rows_out=len(kept), metrics=seconds)


def mend_caption(caption: str) -> str:
    """Mistaken encodings and HTML entities undone (ftfy), every run of white space one blank."""
    return " ".join(ftfy.fix_text(caption).split())


def _prepare_captions(captions: Sequence[str], towers: Towers) -> tuple[pa.Array, Tensor]:
    mended = [mend_caption(caption) for caption in captions]
    return pa.array(mended, pa.string()), towers.tokenize(mended)


def _encode_pictures(
    download: Committed, rows: pa.Table, towers: Towers, batch_size: int, decode_threads: int, seconds: Seconds
) -> tuple[Vectors, Faults]:
    """(N, D) for all rows; those of unreadable pictures mean nothing."""
    where = (rows[name].to_pylist() for name in ("image_offset", "image_bytes", "width", "height"))
    pictures = [Stored(*fields) for fields in zip(*where, strict=True)]
    found: list[Vectors] = [np.empty((0, towers.width), np.float32)]
    faults: Faults = {}
    with download.open("images") as tar, ThreadPoolExecutor(decode_threads) as pool:
        batches = Decoder(tar, towers.fitter(), towers.empty_pixels).batches(pictures, batch_size, pool)
        while True:
            with _measured(seconds, "decode_wait_s"):
                batch = next(batches, None)
            if batch is None:
                return np.concatenate(found), faults
            with _measured(seconds, "model_s"):
                found.append(towers.encode_images(batch.pixels))
            faults |= batch.faults


def _write(out: ShardWriter, pair_ids: pa.Array, captions: pa.Array, images: Vectors, texts: Vectors) -> None:
    scores = np.einsum("nd,nd->n", images, texts)
    out.table("pairs", "{stem}.parquet", pa.table([pair_ids, captions, scores], schema=EMBEDDED))
    out.array("img_emb", "img_emb/img_emb_{stem}.npy", images.astype(np.float16))
    out.array("text_emb", "text_emb/text_emb_{stem}.npy", texts.astype(np.float16))


@contextmanager
def _measured(seconds: Seconds, name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[name] += time.monotonic() - started
