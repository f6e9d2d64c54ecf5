"""What the tests of captions and of evaluation share: made once, for an index takes seconds."""

from pathlib import Path

import pytest

from tests.evaluation.indexed import config, draw, indexed, saved
from tests.evaluation.worlds import World
from tests.model.small_models import small_model


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def database(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return indexed(tmp_path_factory.mktemp("database"), pictures, "own")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("checkpoint"), small_model(config()))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))
