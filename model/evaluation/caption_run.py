"""Captions of any number of pictures, shard by shard, under a root of their own.

Writes  pictures (PICTURES): where each picture lies, a row group a shard of captions · captions (CAPTIONS), a shard so
        many pictures
Rejects the crawl's reasons, of a picture that cannot be fetched or read (pair_id: its name); prompt_too_long

What is listed stays listed: a resumed run captions what the folders held when it began.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from model.evaluation.answerer import Decoding, identity_of
from model.evaluation.caption_rows import caption_table
from model.evaluation.captioner import BATCH, Captioner
from model.evaluation.fitting import neighbors_shown
from model.evaluation.given import Place, check, places, read
from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.reasons import Reason
from pipeline.recipe import Json, Section
from pipeline.run import Root
from pipeline.schemas import PICTURES
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.storage import absolute_root
from pipeline.writer import ShardWriter, Task
from stages.download import DownloadRecipe

LIST = "pictures"
INDEX = "index_gate"  # whose one file names all that an index is made of
PER_HOST = 1  # connections of a worker: none knows how many others ask the same host


class CaptionRun(Section):
    """What jobs/caption.py is asked for; what begins with batch_size is of a run under a root alone."""

    checkpoint: Root
    index: Root | None  # None: the model is shown no neighbours
    pictures: tuple[Root, ...]  # files, folders, globs, urls and parquets
    neighbors: int | None = Field(None, ge=0)  # None: as many as the model was trained with
    other_encoder: bool = False  # the index may have other keys than those the model was trained with
    beams: int = Field(3, ge=1, le=64)  # 1 is greedy
    max_new_tokens: int = Field(20, ge=1)
    allow: frozenset[str] = frozenset()  # host:port that may be asked though private
    batch_size: int = Field(BATCH, ge=1)  # pictures; another size changes the last bits of what the model computes
    per_shard: int = Field(256, ge=1)
    cpus: int = Field(default=1, ge=1)  # threads of a worker
    gpus: float | None = Field(default=None, ge=0)  # of a worker; None: one, where the machine that asks has one
    workers: int | None = Field(default=None, ge=1)  # None: as many as the cluster holds

    @property
    def decoding(self) -> Decoding:
        return Decoding(beams=self.beams, max_new_tokens=self.max_new_tokens)

    @property
    def gpus_of_a_worker(self) -> float:
        return self.gpus if self.gpus is not None else float(Path("/dev/nvidiactl").exists())

    @property
    def fetch(self) -> DownloadRecipe:
        return DownloadRecipe(allow=self.allow)

    def captioner(self) -> Captioner:
        """Raises InputError as Captioner.open does."""
        return Captioner.open(
            self.checkpoint, self.index, self.decoding, neighbors=self.neighbors, other_encoder=self.other_encoder
        )


@dataclass(frozen=True)
class PictureList(Stage[None]):
    run: CaptionRun
    name, version = LIST, 1

    def settings(self) -> Mapping[str, Json]:
        return self.run.model_dump(mode="json", include={"pictures", "per_shard"})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        found = (place for name in self.run.pictures for place in places(name))
        rows = 0
        with pq.ParquetWriter(out.file("pictures", "{stem}.parquet"), PICTURES, compression="zstd") as writer:
            while some := list(islice(found, self.run.per_shard)):
                writer.write_table(_listed(some), row_group_size=self.run.per_shard)
                rows += len(some)
        return Counts(rows, rows)


@dataclass(frozen=True)
class Captions(Stage[Captioner]):
    """checkpoint: the identity of its files. shown: neighbours a picture."""

    run: CaptionRun
    checkpoint: str
    shown: int
    name, version, stateful = "captions", 1, True

    @classmethod
    def of(cls, run: CaptionRun) -> Self:
        """Raises InputError where there is no such checkpoint, or the index does not go with it."""
        shown = neighbors_shown(run.checkpoint, run.index, run.neighbors, other_encoder=run.other_encoder)
        return cls(run, identity_of(run.checkpoint), shown)

    @property
    def inputs(self) -> Sequence[Input]:
        listed = Input(LIST, Need.WHOLE)
        return [listed, Input(INDEX, Need.WHOLE, absolute_root(self.run.index))] if self.run.index else [listed]

    @property
    def resources(self) -> Resources:
        return Resources(
            cpus=self.run.cpus,
            gpus=self.run.gpus_of_a_worker,
            memory_gib=4,
            threads=self.run.cpus,
            workers=self.run.workers,
        )

    def settings(self) -> Mapping[str, Json]:
        return {
            "checkpoint": self.checkpoint,
            "neighbors": self.shown,
            "batch_size": self.run.batch_size,
            "download": self.run.fetch.of_the_result(),
            **asdict(self.run.decoding),
        }

    def conditions(self) -> Mapping[str, Json]:
        return {"cpus": self.run.cpus, "gpus": self.run.gpus_of_a_worker}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        listed = _list_of(whole[LIST])
        return Plan([Shard(shard_id(number)) for number in range(listed.num_row_groups)])

    def news(self, whole: Whole) -> str:
        faults = Counter[str]()
        for shard in whole.manifest.shards:
            faults.update(whole.folder.record(shard).rejects)
        told = ", ".join(f"{reason} {count:,}" for reason, count in faults.most_common())
        return f"{whole.rows:,} captions" + (f"; {faults.total():,} pictures have none: {told}" if told else "")

    def pair_ids(self, task: Task) -> list[str]:
        return [place.name for place in _places_of(task)]

    def open(self, task: Task) -> Captioner:
        if identity_of(self.run.checkpoint) != self.checkpoint:
            raise RecipeError(f"captions: {self.run.checkpoint} holds another model than when the run began")
        return self.run.captioner()

    def process(self, task: Task, out: ShardWriter, state: Captioner) -> Counts:
        found, seconds = [], Counter[str]()
        listed = _places_of(task)
        fetch = self.run.fetch.model_copy(update={"connections_per_host": PER_HOST})
        for caption in state.captions(read(listed, fetch), self.run.batch_size):
            if caption.caption is None:
                reason, _, detail = caption.error.partition(": ")
                out.reject(caption.picture, Reason(reason), detail)
            else:
                seconds.update({f"{what}_s": took for what, took in caption.seconds.items()})
                found.append(replace(caption, jpeg=None, seconds={}))  # a file that holds times is never made again
        out.table("captions", "{stem}.parquet", caption_table(found))
        removed = sum(each.removed for each in found)
        return Counts(len(listed), len(found), {**seconds, "removed": removed})


def caption_stages(run: CaptionRun, root: str) -> list[Stage[Any]]:
    """root: where they write. Raises InputError where it lies in a folder of pictures, where a name is that of nothing,
    and as Captions.of does."""
    check(run.pictures)
    for name in run.pictures:
        if Path(name).is_dir() and Path(root).resolve().is_relative_to(Path(name).resolve()):
            raise InputError(f"--save {root} lies in {name}, all of whose files are to be captioned: name another root")
    return [PictureList(run), Captions.of(run)]


def _listed(some: Sequence[Place]) -> pa.Table:
    return pa.Table.from_pylist([vars(each) for each in some], schema=PICTURES)


def _list_of(whole: Whole) -> pq.ParquetFile:
    (shard,) = whole.shards
    return pq.ParquetFile(whole.read(shard).path("pictures"), pre_buffer=False)


def _places_of(task: Task) -> list[Place]:
    group = _list_of(task.whole(LIST)).read_row_group(int(task.id), use_threads=False)
    return [Place(**row) for row in group.to_pylist()]
