"""Whether a root still has room to grow on the disk where it lies."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.storage import absolute_root
from stages.plan.plan import Plan
from stages.plan.tables import in_units


@dataclass(frozen=True)
class Room:
    """Bytes. scratch: of the shards that are made at the same time, beside those that are done.
    folder: where the disk was asked. free: None: an object store, which is not asked."""

    grows_by: int
    scratch: int
    folder: str
    free: int | None

    @property
    def enough(self) -> bool:
        return self.free is None or self.grows_by + self.scratch <= self.free

    def __str__(self) -> str:
        needed = f"{in_units(self.grows_by)} to come and {in_units(self.scratch)} of shards in the making"
        if self.free is None:
            return f"{needed}; an object store's room is not checked, and each worker needs its share of the latter."
        free = f"{in_units(self.free)} free in {self.folder}"
        return f"{needed}, {free}: {'it fits' if self.enough else 'IT DOES NOT FIT'}."


def room_for(plan: Plan) -> Room:
    """A shard in the making lies beside the finished ones until it is committed."""
    root = absolute_root(plan.job.root)
    shards = [
        stage.left.bytes.value / stage.left.shards.value * min(stage.left.shards.value, plan.cpus)
        for stage in plan.stages
        if stage.left.shards.value
    ]
    folder = root if "://" in root else str(_nearest(Path(root)))
    free = None if "://" in root else shutil.disk_usage(folder).free
    return Room(round(plan.bytes.value), round(max(shards, default=0)), folder, free)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())
