"""Owners in processes of their own answer as one process does, bit for bit, whatever happens to them."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.executor import LocalExecutor
from pipeline.recipe import Json
from pipeline.run import Run
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.index import IndexRecipe, Retriever
from stages.index.add import IndexAdd
from stages.index.fleet import Fleet
from stages.index.gate import IndexGate
from stages.index.parts import Parts
from stages.index.report import IndexReport
from stages.index.serve import IndexServe
from tests.stages.index.corpora import Drawn, index

pytestmark = pytest.mark.usefixtures("ray_cluster")
CORPUS, MORE = Drawn(rows=1500), Drawn(rows=700, seed=9, shards=2)
SMALL = Resources(cpus=0.1, memory_gib=0.1)
FOUR_SHARDS = {"factory": "PCAR32,IVF32_HNSW8,PQ16x4", "serving_shards": 4, "min_recall": None, "target_recall": 0.5}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return index(tmp_path_factory.mktemp("index"), CORPUS, **FOUR_SHARDS)


@dataclass(frozen=True)
class Deleted(Stage[None]):
    """Every seventh row of two corpora may not be found."""

    rows: int
    name, version = "index_alive", 1

    def settings(self) -> Mapping[str, Json]:
        return vars(self)

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(0))], {"size": self.rows})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        out.array("alive", "alive_{stem}.npy", np.packbits(np.arange(self.rows) % 7 > 0, bitorder="little"))
        return Counts(self.rows, self.rows)


@pytest.fixture(scope="module")
def grown(root: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root whose index adds a corpus to that of another root, in three more serving shards, and deletes some rows."""
    recipe = IndexRecipe(serving_shards=3, min_recall=None, target_recall=0.5)
    old, new = Input("corpus", Need.WHOLE, root, "old corpus"), Input("corpus", Need.WHOLE)
    template, alive = Input("index_train", Need.WHOLE, root), Input("index_alive", Need.WHOLE)
    serving = [Input("index", Need.WHOLE, root, "old index"), Input("index", Need.WHOLE)]
    parts = Parts([old, new], template, serving, alive)
    stages: list[Stage[Any]] = [
        MORE,
        IndexAdd(recipe, [(new, CORPUS.rows)], template),
        IndexServe(recipe, template),
        Deleted(CORPUS.rows + MORE.rows),
        IndexReport(recipe, parts),
        IndexGate(recipe, parts),
    ]
    folder = tmp_path_factory.mktemp("grown")
    report = Run(str(folder), stages).execute(LocalExecutor())
    assert report.exit_code == 0, "\n".join([str(report), *report.failed.values()])
    return str(folder)


@pytest.fixture(scope="module")
def fleet(root: str) -> Iterator[Fleet]:
    """Two owners of two serving shards each."""
    with closing(Fleet(root, num_owners=2, resources=SMALL)) as fleet:
        yield fleet


def assert_same_answers(root: str, fleet: Fleet, nprobe: int = 6) -> None:
    ours, theirs = (Retriever(root, nprobe=nprobe, depth=50, owners=owners) for owners in (fleet, None))
    queries = CORPUS.images[::100]
    for asked in (queries, *queries[:4, None]):
        for rerank in (True, False):
            found, expected = (one.search(asked, 10, rerank=rerank) for one in (ours, theirs))
            np.testing.assert_array_equal(found, expected)
    excluded = [row[:3] for row in theirs.search(queries, 3)[0]]
    found, expected = (one.search(queries, 10, exclude=excluded) for one in (ours, theirs))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("nprobe", [1, 6, 32])
def test_owners_answer_as_one_process_does(root: str, fleet: Fleet, nprobe: int) -> None:
    assert_same_answers(root, fleet, nprobe)


def test_only_the_owners_of_the_probed_lists_are_asked(root: str, fleet: Fleet) -> None:
    retriever = Retriever(root, nprobe=1, owners=fleet)
    border = retriever.index.serving[0].ranges[2].first_list
    (lists,) = fleet.probe(CORPUS.images[::100].astype(np.float32), 1).lists.T
    for query, number in zip(CORPUS.images[::100], lists, strict=True):
        before = fleet.whereabouts()
        retriever.search(query[None], 5)
        after = fleet.whereabouts()
        assert [after[name].calls - before[name].calls for name in before] == [number < border, number >= border]
    assert 0 < (lists < border).mean() < 1


def test_an_owner_killed_between_queries_is_not_missed(root: str, fleet: Fleet) -> None:
    for owner in fleet.whereabouts().values():
        os.kill(owner.process, signal.SIGKILL)
    assert_same_answers(root, fleet)


def test_owners_killed_during_queries_give_the_same_answers(root: str, fleet: Fleet) -> None:
    local, remote = Retriever(root, nprobe=32, depth=50), Retriever(root, nprobe=32, depth=50, owners=fleet)
    expected = local.search(CORPUS.images, 10)
    before = [owner.process for owner in fleet.whereabouts().values()]
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.extend(remote.search(CORPUS.images, 10) for _ in range(20)))
    asking.start()
    for process in before:
        os.kill(process, signal.SIGKILL)
        fleet.whereabouts()  # until both live
    asking.join()
    assert len(answers) == 20
    for found in answers:
        np.testing.assert_array_equal(found, expected)
    assert not {owner.process for owner in fleet.whereabouts().values()} & {*before}


def test_an_owner_whose_file_is_cut_off_under_it_dies_and_then_names_the_file(tmp_path: Path) -> None:
    root = index(tmp_path, Drawn(rows=400, shards=1), factory="IVF4,Flat", serving_shards=1, min_recall=None)
    with closing(Fleet(root, resources=SMALL)) as fleet:
        retriever = Retriever(root, owners=fleet)
        retriever.search(Drawn(rows=400).images[:3], 5)
        (file,) = Path(root, "index", "data", "shards").iterdir()
        os.truncate(file, 100)
        with pytest.raises(InputError, match=f"{file.name} has 100 bytes instead of"):
            retriever.search(Drawn(rows=400).images[:3], 5)


def test_owners_hold_the_shards_of_several_parts_and_find_no_deleted_row(grown: str) -> None:
    with closing(Fleet(grown, num_owners=3, resources=SMALL)) as fleet:
        assert_same_answers(grown, fleet)
        ids, _ = Retriever(grown, nprobe=32, depth=2000, owners=fleet).search(CORPUS.images[:5], 2000)
    alive = np.flatnonzero(np.arange(CORPUS.rows + MORE.rows) % 7)
    assert all(set(found[found >= 0]) == set(alive) for found in ids)


def test_more_owners_than_serving_shards_are_refused(root: str) -> None:
    with pytest.raises(RecipeError, match="5 owners were asked for, and the index has 4 serving shards"):
        Fleet(root, num_owners=5)
