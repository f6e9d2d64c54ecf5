"""What several tests of evaluation ask about."""

import pytest

from tests.evaluation.worlds import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))
