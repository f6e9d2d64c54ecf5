import pytest

from stages.filter import FilterRecipe
from tests.stages.filter.making import Made
from tests.stages.report.roots import make_pairs, run_all


@pytest.fixture(scope="session")
def pairs() -> list[Made]:
    return make_pairs()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, pairs: list[Made]) -> str:
    """A finished run. Read it, and never write into it."""
    return run_all(tmp_path_factory.mktemp("whole"), pairs, FilterRecipe(duplicates="drop"))
