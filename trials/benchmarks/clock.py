"""How long something takes."""

import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of all threads of the process; what else runs on the machine counts little."""
    started = time.process_time()
    work()
    return time.process_time() - started
