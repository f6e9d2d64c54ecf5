"""The patch tokens of a corpus's pictures by a frozen image encoder, made once and read in place of the pictures.

Reads   a corpus, and its pictures where they lie
Writes  patches (rows, S, E) float16 and readable (rows,) bool, row-aligned with the shard of the corpus of that id
Rejects corrupt_image: its rows are zeros, so that a row's place follows from its row id
Shapes: B pictures, S patch tokens of width E
"""

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from model.config import ImageEncoderConfig, from_dict, to_dict
from model.training.encoders import EncoderRecipe, open_encoder
from pipeline.commits import Whole
from pipeline.errors import RecipeError
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage
from pipeline.storage import absolute_root
from pipeline.writer import ShardWriter, Task
from stages.filter import Corpus, CorpusReader
from stages.neighbors import Device

if TYPE_CHECKING:  # what is imported here would make the help of a job wait for torch
    from torch import Tensor

    from model.image_encoder import ImageEncoder

Row = dict[str, Any]  # of PAIRS
Given = TypeVar("Given")
Made = TypeVar("Made")

_ROW = ("pair_id", "input", "shard", "offset", "bytes")
_AHEAD = 2  # batches of pictures in the making while the encoder has one
_OPEN_SHARDS = 1024  # of a reader: mapped, not read; a global order asks for all of them in turn


class PatchesRecipe(EncoderRecipe):
    batch_size: int = Field(default=64, ge=1)  # pictures; another size changes the last bits of the result
    device: Device = Field(default="auto", validate_default=True)
    cpus: int = Field(default=2, ge=1)  # of one worker; without a GPU the encoder computes with as many threads
    decode_threads: int = Field(default=2, ge=1)  # of one worker
    workers: int | None = Field(default=None, ge=1)  # None: as many as the cluster holds


@dataclass(frozen=True)
class Opened:
    """What a process keeps between shards."""

    encoder: "ImageEncoder"
    corpus: CorpusReader
    device: str

    def picture(self, row: Row) -> "Tensor | str":
        """(1, 3, H, W) uint8, or why there is none."""
        from model.training.pictures import decode

        jpeg = self.corpus.picture(row)
        try:
            return decode(jpeg, self.encoder.config.image_size)
        except ValueError as error:
            return str(error)

    def patches(self, pictures: Sequence["Tensor | str"]) -> "Tensor":
        """(B, S, E) float16 on the CPU; zeros where there is no picture."""
        import torch

        size = self.encoder.config.image_size
        blank = torch.zeros(1, 3, size, size, dtype=torch.uint8)
        pixels = torch.cat([blank if isinstance(picture, str) else picture for picture in pictures])
        on_gpu = self.device == "cuda"
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=on_gpu):
            patches: Tensor = self.encoder(pixels.to(self.device)).half().cpu()
            patches[[isinstance(picture, str) for picture in pictures]] = 0
        return patches


@dataclass(frozen=True)
class Patches(Stage[Opened]):
    """corpus: the root whose pictures are encoded. weights: tensors_digest of the encoder."""

    recipe: PatchesRecipe
    corpus: str
    encoder: ImageEncoderConfig
    weights: str
    name, version, stateful = "patches", 1, True

    @classmethod
    def of(cls, recipe: PatchesRecipe, corpus: str) -> Self:
        """Reads the weights, to know which they are. Raises RecipeError as open_encoder does."""
        from model.checkpoint import tensors_digest

        encoder = open_encoder(recipe)
        return cls(recipe, absolute_root(corpus), encoder.config, tensors_digest(encoder))

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input(Corpus.name, Need.WHOLE, self.corpus)]

    @property
    def resources(self) -> Resources:
        return Resources(
            cpus=self.recipe.cpus,
            gpus=1 if self.recipe.device == "cuda" else 0,
            memory_gib=3,
            threads=self.recipe.cpus,
            workers=self.recipe.workers,
        )

    def settings(self) -> Mapping[str, Json]:
        return {
            "encoder": to_dict(self.encoder),
            "weights": self.weights,
            "batch_size": self.recipe.batch_size,
            "precision": "bf16" if self.recipe.device == "cuda" else "fp32",
        }

    def conditions(self) -> Mapping[str, Json]:
        return {"threads": self.recipe.cpus}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        shards, first_row_id = [], 0
        for name, summary in whole[Corpus.name].shards.items():
            shards.append(Shard(name, {"first_row_id": first_row_id}))
            first_row_id += summary.rows_out
        return Plan(shards, {"encoder": to_dict(self.encoder), "weights": self.weights, "rows": first_row_id})

    def open(self, task: Task) -> Opened:
        from model.checkpoint import tensors_digest

        encoder = open_encoder(self.recipe)
        if tensors_digest(encoder) != self.weights:
            raise RecipeError(f"patches: {self.recipe.files()[1]} holds other weights than when the run began")
        return Opened(encoder.to(self.recipe.device), CorpusReader(self.corpus), self.recipe.device)

    def process(self, task: Task, out: ShardWriter, state: Opened) -> Counts:
        rows: list[Row] = task.whole(Corpus.name).read(task.id).table("metadata", _ROW).to_pylist()
        readable, seconds = np.ones(len(rows), np.bool_), defaultdict[str, float](float)
        with (
            out.file("patches", "patches_{stem}.npy").open("wb") as file,
            ThreadPoolExecutor(self.recipe.decode_threads) as pool,
        ):
            _write_header(file, (len(rows), self.encoder.grid**2, self.encoder.width))
            pictures = _ahead(pool, state.picture, rows, (1 + _AHEAD) * self.recipe.batch_size)
            for first in range(0, len(rows), self.recipe.batch_size):
                started = monotonic()
                batch = list(islice(pictures, self.recipe.batch_size))
                decoded = monotonic()
                file.write(state.patches(batch).numpy().data)
                seconds["decode_wait_s"] += decoded - started
                seconds["model_s"] += monotonic() - decoded
                for number, picture in enumerate(batch, first):
                    if isinstance(picture, str):
                        readable[number] = False
                        out.reject(rows[number]["pair_id"], Reason.CORRUPT_IMAGE, picture)
        out.array("readable", "readable_{stem}.npy", readable)
        return Counts(len(rows), int(readable.sum()), {"unreadable": int((~readable).sum()), **seconds})


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Of .npy: the rows are written one after the other, not into a map, where a full disk would kill the process."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})


def _ahead(pool: Executor, make: Callable[[Given], Made], given: Iterable[Given], limit: int) -> Iterator[Made]:
    """In order, `limit` in the making at a time."""
    making: deque[Future[Made]] = deque()
    for each in given:
        making.append(pool.submit(make, each))
        if len(making) == limit:
            yield making.popleft().result()
    while making:
        yield making.popleft().result()


class PatchReader:
    """Raises InputError where the root's patches are not whole."""

    def __init__(self, root: str) -> None:
        self._whole = Whole.open(root, Patches.name)
        plan = self._whole.plan()
        self.rows: int = plan.resolved["rows"]  # row ids are 0 … rows − 1, as in the corpus
        self.tower: str = plan.resolved["weights"]  # tensors_digest of the encoder
        self.encoder = from_dict(ImageEncoderConfig, plan.resolved["encoder"])
        self._shard_ids = [shard for shard, _ in plan.shards]
        self._first_row_ids = [params["first_row_id"] for _, params in plan.shards]
        self._shard_of = lru_cache(maxsize=_OPEN_SHARDS)(self._shard)

    @property
    def corpus_identity(self) -> str:
        """Of the corpus whose row ids these are."""
        return self._whole.manifest.inputs[Corpus.name]

    @property
    def shape(self) -> tuple[int, int]:
        """S, E."""
        return self.encoder.grid**2, self.encoder.width

    def patches(self, row_id: int) -> "Tensor | None":
        """(1, S, E) float16 in memory of its own, or None where the picture could not be read. Raises IndexError where
        there is no such row."""
        from torch import from_numpy

        if not 0 <= row_id < self.rows:
            raise IndexError(f"row id {row_id} is not in the corpus, which has {self.rows:,} rows")
        number = bisect_right(self._first_row_ids, row_id) - 1
        patches, readable = self._shard_of(number)
        row = row_id - self._first_row_ids[number]
        # A copy: the map is read-only, and torch has no such tensors.
        return from_numpy(patches[row : row + 1].copy()) if readable[row] else None

    def _shard(self, number: int) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
        """Patches, memory-mapped; which are readable, in memory."""
        committed = self._whole.read(self._shard_ids[number])
        return committed.array("patches").view(np.ndarray), np.array(committed.array("readable"))
