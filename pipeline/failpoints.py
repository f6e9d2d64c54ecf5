"""Places where a test may kill the process, as a power cut would: REVILM_FAILPOINT=stage:step in the environment."""

import os
import signal

STEPS = ("plan", "process", "written", "renamed", "committed", "stats", "manifest")
"""The steps at which a process can die, in the order in which a stage passes them."""


def failpoint(stage: str, step: str) -> None:
    if os.environ.get("REVILM_FAILPOINT") == f"{stage}:{step}":
        os.kill(os.getpid(), signal.SIGKILL)
