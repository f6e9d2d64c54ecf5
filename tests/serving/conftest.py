"""A small model beside an index of drawn scenes, made once for all tests of the service."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.evaluation.indexed import NEIGHBORS, SCENES, config, draw, indexed, saved
from tests.model.small_models import small_model
from tests.threads import one_thread

__all__ = ["NEIGHBORS", "SCENES", "one_thread"]


@dataclass(frozen=True)
class Made:
    checkpoint: str
    index: str
    pictures: list[Path]  # those of the index, in the order of its rows
    neighbors: int = NEIGHBORS  # that the model reads


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folders = [tmp_path_factory.mktemp(name) for name in ("checkpoint", "index", "pictures")]
    pictures = draw(folders[2])
    checkpoint = saved(folders[0], small_model(config()))
    return Made(checkpoint, indexed(folders[1], pictures, "own"), sorted(pictures.iterdir()))
