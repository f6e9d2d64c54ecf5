"""What all tests of the training share."""

from pathlib import Path

import pytest
import torch

from model.training.recipe import STAGES
from tests.threads import one_thread as one_thread
from tests.training.tiny import Tiny, train


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Nobody may write to it."""
    return Tiny(tmp_path_factory.mktemp("tiny")).make()


@pytest.fixture(scope="session")
def chain(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with all four stages, each trained for four updates on the result of the one before. Nobody may write to
    it; a copy is as good as the original."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("chain")
    for stage in STAGES:
        train(tiny.recipe(root, stage))
    return root
