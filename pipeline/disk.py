"""What local disks are asked for: sizes of many files, files that outlast a power cut, room, one process at a time."""

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError, StorageError

FULL = (errno.ENOSPC, errno.EDQUOT)
LEFT_BY_A_FULL_DISK = 2**20  # bytes
MANY_OPEN_FILES = 65_536  # as many files as Linux lets a process map


def files_below(folder: Path, above: str = "") -> Iterator[tuple[str, int]]:
    """Path below the folder and bytes of every file at any depth, links followed; but not what goes away."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():  # or a link to one, on another disk
                yield from files_below(Path(entry), f"{above}{entry.name}/")
                continue
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    yield above + entry.name, status.st_size


def sync(path: Path) -> None:
    """Of a file or of a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """An error inside the block whose cause is a full disk, or a quota, is a StorageError that says how much is free.
    Libraries say it with the system's number, in words, or not at all: then the disk is asked."""
    try:
        yield
    except (PipelineError, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
        told = getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error)
        if not told and free > LEFT_BY_A_FULL_DISK:
            raise
        raise StorageError(
            f"no room in {folder} ({error}; {free:,} bytes are free). What is done is kept, and the same command "
            "continues."
        ) from None


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time. The lock of a process that dies is the next one's."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def allow_many_open_files() -> None:
    """Raise this process' own limit, commonly 1,024, as far as the system lets it: a corpus of 10 million pairs has as
    many shards. (Ray does so where it starts itself, but not in a process that only searches.)"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MANY_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_OPEN_FILES)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
