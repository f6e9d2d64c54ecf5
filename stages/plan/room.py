"""Whether a root still has room to grow on the disk where it lies."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.storage import absolute_root
from stages.plan.plan import Plan


@dataclass(frozen=True)
class Room:
    """Bytes. scratch: of the shards that are made at the same time, beside those that are done.
    free: None: an object store, which is not asked."""

    grows_by: int
    scratch: int
    free: int | None

    @property
    def enough(self) -> bool:
        return self.free is None or self.grows_by + self.scratch <= self.free

    def __str__(self) -> str:
        needed = f"{self.grows_by:,} bytes to come and {self.scratch:,} of shards in the making"
        if self.free is None:
            return f"{needed}; an object store's room is not checked, and each worker needs its share of the latter."
        return f"{needed}, {self.free:,} free: {'it fits' if self.enough else 'IT DOES NOT FIT'}."


def room_for(plan: Plan) -> Room:
    """A shard in the making lies beside the finished ones until it is committed."""
    root = absolute_root(plan.job.root)
    shards = [
        stage.left.bytes.value / stage.left.shards.value * min(stage.left.shards.value, plan.cpus)
        for stage in plan.stages
        if stage.left.shards.value
    ]
    free = None if "://" in root else shutil.disk_usage(_nearest(Path(root))).free
    return Room(round(plan.bytes.value), round(max(shards, default=0)), free)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())
