"""Numeric libraries sum in another order with another number of threads, so a stage's number is declared and kept."""

import os
import sys

_now: int | None = None


def set_threads(threads: int) -> None:
    """Of this process: for libraries that are loaded and, through the environment, for those that are loaded later."""
    global _now
    if threads == _now:
        return  # threadpoolctl looks through every loaded library: 1 ms a shard
    from threadpoolctl import threadpool_limits

    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    threadpool_limits(limits=threads)
    _now = threads
