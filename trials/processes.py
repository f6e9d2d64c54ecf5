"""What other processes of this machine are and have used, by /proc."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    cpu_s: float = 0
    peak_bytes: int = 0  # of resident memory

    @classmethod
    def of(cls, process: int) -> "Usage":
        """Raises ProcessLookupError or FileNotFoundError where the process has ended."""
        user, system = _status_fields(process)[11:13]
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
        if not peaks:  # ended, and not yet waited for
            raise ProcessLookupError(process)
        return cls((int(user) + int(system)) / TICKS_PER_S, peaks[0] * 1024)


def descendants(process: int) -> Iterator[int]:
    """Children, their children, and so on."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            children.setdefault(int(_status_fields(int(folder.name))[1]), []).append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    waiting = [process]
    while waiting:
        found = children.get(waiting.pop(), [])
        yield from found
        waiting += found


def title(process: int) -> str:
    """What the process calls itself; nothing where it is gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().partition("\0")[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _status_fields(process: int) -> list[str]:
    """From the third field on: the second, the name, may hold anything."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
