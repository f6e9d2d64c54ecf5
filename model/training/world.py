"""The processes that train together: what torch.distributed knows of them, and the plain case of one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, distributed

from model.training.updates import Rank


@dataclass(frozen=True)
class World:
    """Of this process, once the process group stands (by Ray Train, or by `joined`); without one it is alone."""

    device: torch.device
    rank: Rank

    @classmethod
    def here(cls, device: torch.device | str = "cpu") -> "World":
        if not distributed.is_initialized():
            return cls(torch.device(device), Rank())
        return cls(torch.device(device), Rank(distributed.get_rank(), distributed.get_world_size()))

    @property
    def leads(self) -> bool:
        """Exactly one process does: it writes and prints."""
        return self.rank.number == 0

    def sum(self, numbers: Sequence[float] | Tensor) -> Tensor:
        """float64, over all processes."""
        total = torch.as_tensor(numbers, dtype=torch.float64).to(self.device, copy=True)
        if self.rank.of > 1:
            distributed.all_reduce(total)
        return total.cpu()

    def agree(self, number: float) -> bool:
        """Whether all processes say the same number; they all learn so."""
        said = torch.zeros(self.rank.of, dtype=torch.float64)
        said[self.rank.number] = number
        return len(set(self.sum(said).tolist())) == 1

    def of_leader(self, number: float) -> float:
        """What the process that leads says, in place of one's own."""
        return float(self.sum([number if self.leads else 0.0]))

    def wait(self) -> None:
        """Until every process is here."""
        self.sum([0])


@contextmanager
def joined() -> Iterator[None]:
    """As torchrun starts processes: by the environment's variables. Does nothing where there are none."""
    if "WORLD_SIZE" not in os.environ or distributed.is_initialized():
        yield
        return
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def local_device(wanted: Literal["auto", "cpu", "cuda"] = "auto") -> torch.device:
    """Of this process among those of its machine."""
    if wanted == "cpu" or wanted == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
