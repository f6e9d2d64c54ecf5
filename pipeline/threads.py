"""Numeric libraries sum in another order with another number of threads, so a stage's number is declared and kept."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """Holds for libraries that are loaded and, through the environment, for those that `process` loads."""
    from threadpoolctl import threadpool_limits

    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    with threadpool_limits(limits=threads):
        yield
