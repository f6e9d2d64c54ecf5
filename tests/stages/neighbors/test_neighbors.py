"""Every pair's neighbours are the nearest rows that no leakage rule forbids, and what was removed is counted truly."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from jobs import precompute_neighbors
from pipeline.commits import StageFolder, Whole
from pipeline.errors import FingerprintMismatch, InputError, RecipeError
from pipeline.executor import LocalExecutor
from pipeline.recipe import Json
from pipeline.run import Run
from pipeline.schemas import NEIGHBORS
from pipeline.stage import Counts, Input, Need, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.index import Database
from stages.neighbors import NeighborReader, NeighborsRecipe, neighbor_stages
from stages.neighbors.verify import verify
from tests.stages.index.corpora import Drawn, index
from tests.stages.neighbors.crowded import Crowded, OneCaption, Searched, by_hand, found_in, precompute, rule_broken
from tests.toys import data_of

ROOT = Path(__file__).parents[3]
NEAR = Crowded(rows=150)
FAR = Crowded(rows=120, seed=8, own="far", shards=3)
ASKED = {"k": 4, "over_fetch": 3, "depth": 60}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """near and far: corpora; indexed: near with an index whose one list is probed whole."""
    folder = tmp_path_factory.mktemp("roots")
    for name, corpus in {"near": NEAR, "far": FAR}.items():
        Run(str(folder / name), [corpus]).execute(LocalExecutor())
    index(folder / "indexed", NEAR, factory="IVF1,Flat", min_recall=None)
    return folder


@dataclass(frozen=True)
class Deleted(Stage[None]):
    """Which rows of a root's index are alive: not every fifth."""

    root: str
    rows: int
    name, version = "index_alive", 1

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(0))], {"size": self.rows})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        out.array("alive", "{stem}.npy", np.packbits(alive_rows(self.rows), bitorder="little"))
        return Counts(self.rows, self.rows)


@dataclass(frozen=True)
class Without(Stage[None]):
    """The index of another root, less what Deleted says."""

    root: str
    name, version = "index_gate", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input("index_alive", Need.WHOLE)]

    def settings(self) -> Mapping[str, Json]:
        return {}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        whole, made = Database.of_index(self.root).index, task.whole("index_alive").identity
        assert whole is not None
        said = whole.elsewhere(self.root).model_dump(mode="json") | {"alive": {"root": ".", "identity": made}}
        out.json("index", "index_{stem}.json", said)
        return Counts(0, 0)


def alive_rows(rows: int) -> npt.NDArray[np.bool_]:
    alive: npt.NDArray[np.bool_] = np.arange(rows) % 5 != 0
    return alive


@pytest.fixture(scope="module")
def deleted(roots: Path) -> Path:
    near = str(roots / "indexed")
    Run(str(roots / "deleted"), [Deleted(near, NEAR.rows), Without(near)]).execute(LocalExecutor())
    return roots / "deleted"


# ── what is found ──


@pytest.mark.parametrize("k", [1, 4, 25])
def test_neighbors_in_the_corpus_itself_are_those_told_by_hand(k: int, roots: Path, tmp_path: Path) -> None:
    assert precompute(tmp_path, roots / "near", k=k, over_fetch=2, depth=60).exit_code == 0
    assert found_in(tmp_path) == by_hand(NEAR, [Searched(NEAR)], k, depth=60)


def test_every_rule_has_removed_something_and_some_queries_fell_short(roots: Path, tmp_path: Path) -> None:
    precompute(tmp_path, roots / "near", **ASKED)
    totals = NeighborReader(str(tmp_path)).totals
    assert totals["queries"] == NEAR.rows
    assert all(totals[f"removed_{rule}"] > 0 for rule in ("pair", "image_id", "sha256", "phash", "caption"))
    assert 0 < totals["asked_again"] < NEAR.rows
    expected = by_hand(NEAR, [Searched(NEAR)], ASKED["k"], ASKED["depth"])
    assert totals["shortfall"] == sum(row["shortfall"] for row in expected)
    assert totals["removed_caption"] == sum(row["removed"]["caption"] for row in expected)


def test_neighbors_in_another_root_and_in_two_are_those_told_by_hand(roots: Path, tmp_path: Path) -> None:
    near, far = str(roots / "near"), str(roots / "far")
    for databases, searched in (([far], [FAR]), ([far, near], [FAR, NEAR])):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        precompute(root, roots / "near", databases=databases, **ASKED)
        assert found_in(root) == by_hand(NEAR, [*map(Searched, searched)], ASKED["k"], ASKED["depth"])


@pytest.mark.parametrize("engine", ["exact", "index"])
def test_deleted_rows_are_no_neighbors(engine: str, deleted: Path, roots: Path, tmp_path: Path) -> None:
    precompute(tmp_path, roots / "far", databases=[str(deleted)], engine=engine, **ASKED)
    searched = Searched(NEAR, alive_rows(NEAR.rows))
    assert found_in(tmp_path) == by_hand(FAR, [searched], ASKED["k"], ASKED["depth"])
    (told,) = StageFolder(str(tmp_path), "neighbors").plan().resolved["databases"]  # type: ignore[union-attr]
    assert told["alive"] == {"root": str(deleted), "stage": "index_alive", "shard": "000000", "name": "alive"}


def test_an_index_that_probes_everything_finds_what_exact_search_finds(roots: Path, tmp_path: Path) -> None:
    for engine in ("exact", "index"):
        databases = [str(roots / "indexed")]
        precompute(tmp_path / engine, roots / "near", databases=databases, engine=engine, **ASKED)
        assert StageFolder(str(tmp_path / engine), "neighbors").plan().resolved["engine"] == engine  # type: ignore[union-attr]
    assert found_in(tmp_path / "index") == found_in(tmp_path / "exact")


def test_an_index_of_many_lists_finds_less_but_nothing_forbidden(tmp_path: Path) -> None:
    corpus = Crowded(rows=900)
    root = Path(index(tmp_path / "root", corpus, factory="IVF8,Flat", min_recall=None, target_recall=0.5))
    for engine in ("exact", "index"):
        precompute(tmp_path / engine, root, engine=engine, k=3, over_fetch=5, depth=50)
    exact, found = found_in(tmp_path / "exact"), found_in(tmp_path / "index")
    least = {row["pair_id"]: row["neighbors"][-1]["similarity"] for row in exact}
    hits = [n["similarity"] >= least[row["pair_id"]] for row in found for n in row["neighbors"]]
    assert 0.5 < sum(hits) / (3 * corpus.rows) < 1
    told = {corpus.row(number)["pair_id"]: corpus.row(number) for number in range(corpus.rows)}
    for row in found:
        for n in row["neighbors"]:
            assert rule_broken(told[row["pair_id"]], told[n["pair_id"]], n["similarity"]) is None


@pytest.mark.parametrize("key", ["image", "text", "mixed"])
def test_the_verifier_passes_what_is_found_by_any_key_and_engine(key: str, deleted: Path, tmp_path: Path) -> None:
    roots = [index(tmp_path / c.own, c, key=key, factory="IVF1,Flat", min_recall=None) for c in (NEAR, FAR)]
    databases = [roots[1], str(deleted)] if key == "image" else roots
    for engine in ("exact", "index"):
        precompute(tmp_path / engine, Path(roots[0]), databases=databases, engine=engine, **ASKED)
        findings = verify(str(tmp_path / engine), sample=100, seed=1)
        assert findings.exit_code == 0, str(findings)
        assert findings.recall is None or findings.recall.share == 1


def test_a_corpus_of_one_caption_starves_and_says_so(tmp_path: Path) -> None:
    corpus = OneCaption(rows=60, shards=2)
    Run(str(tmp_path), [corpus]).execute(LocalExecutor())
    precompute(tmp_path, tmp_path, k=5, over_fetch=1, depth=40)
    for row in found_in(tmp_path):
        assert (row["neighbors"], row["shortfall"]) == ([], 5)
        assert sum(row["removed"].values()) == 40  # all that were looked at
    totals = NeighborReader(str(tmp_path)).totals
    assert (totals["shortfall"], totals["asked_again"]) == (300, 60)
    assert totals["removed_pair"] == 60


# ── what is written ──


@pytest.mark.parametrize("engine", ["exact", "index"])
def test_the_bytes_do_not_depend_on_the_queries_of_a_task(engine: str, roots: Path, tmp_path: Path) -> None:
    written = []
    for queries in (1, 90, 1000):
        root = tmp_path / str(queries)
        databases = [str(roots / "indexed")]
        precompute(root, roots / "near", databases=databases, engine=engine, queries_per_task=queries, **ASKED)
        written.append({name: data for (_, name), data in data_of(str(root), "neighbors").items()})
    assert written[0] == written[1] == written[2]
    assert len(StageFolder(str(tmp_path / "1"), "neighbors").committed()) == NEAR.shards


def test_a_table_lies_beside_every_shard_of_the_corpus(roots: Path, tmp_path: Path) -> None:
    precompute(tmp_path, roots / "near", **ASKED)
    reader, corpus = NeighborReader(str(tmp_path)), Whole.open(str(roots / "near"), "corpus")
    assert (reader.k, reader.corpus_identity) == (4, corpus.identity)
    assert list(reader.shards) == list(corpus.shards)
    for shard in corpus.shards:
        assert reader.table(shard).schema.equals(NEIGHBORS)
        assert reader.table(shard)["pair_id"].to_pylist() == corpus.read(shard).table("metadata")["pair_id"].to_pylist()
    with pytest.raises(InputError, match="no neighbours of corpus shard '7'.*from 000000 to 000003"):
        reader.table("7")


def test_neighbors_that_are_not_finished_or_cut_off_are_not_read(roots: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neighbors is not whole"):
        NeighborReader(str(roots / "near"))
    precompute(tmp_path, roots / "near", **ASKED)
    path = next((tmp_path / "neighbors" / "data").glob("neighbors_000002_*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="neighbors_000002_.* bytes instead of"):
        NeighborReader(str(tmp_path)).table("000002")


def test_auto_takes_the_cheaper_and_exact_search_where_there_is_no_index(roots: Path, tmp_path: Path) -> None:
    for name, costs in {"near": {"exact"}, "indexed": {"exact", "index"}}.items():
        precompute(tmp_path / name, roots / "near", databases=[str(roots / name)], **ASKED)
        resolved = StageFolder(str(tmp_path / name), "neighbors").plan().resolved  # type: ignore[union-attr]
        assert set(resolved["modelled_seconds"]) == costs
        assert resolved["engine"] == "exact"  # 150 rows


# ── the job ──


def arguments(root: Path, corpus: Path, engine: str = "local") -> list[str]:
    sections = json.dumps(ASKED | {"queries_per_task": 80})
    recipe = str(ROOT / "jobs" / "recipes" / "neighbors.yaml")
    return [recipe, f"root={root}", f"corpus={corpus}", f"engine={engine}", f"neighbors={sections}"]


@pytest.mark.parametrize("place", ["neighbor_keys:written", "neighbors:renamed", "neighbors:stats"])
def test_killed_and_run_again_the_root_is_the_same(
    place: str, roots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "jobs/precompute_neighbors.py", *arguments(tmp_path / "killed", roots / "near")]
    environment = os.environ | {"REVILM_FAILPOINT": place, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == -signal.SIGKILL
    for root in ("killed", "quiet"):
        assert precompute_neighbors.main(arguments(tmp_path / root, roots / "near")) == 0
    for stage in ("neighbor_keys", "neighbors"):
        assert data_of(str(tmp_path / "killed"), stage) == data_of(str(tmp_path / "quiet"), stage)
    told = capsys.readouterr().out
    assert "150  queries" in told
    assert f"python jobs/verify_neighbors.py {tmp_path}/quiet" in told


def test_on_ray_the_bytes_are_the_same(ray_cluster: None, roots: Path, tmp_path: Path) -> None:
    for engine in ("local", "ray"):
        assert precompute_neighbors.main(arguments(tmp_path / engine, roots / "near", engine)) == 0
    assert data_of(str(tmp_path / "local"), "neighbors") == data_of(str(tmp_path / "ray"), "neighbors")


def test_the_recipe_of_the_corpus_stays_where_the_neighbors_lie_in_its_root(roots: Path, tmp_path: Path) -> None:
    shutil.copytree(roots / "near", tmp_path / "root")
    (tmp_path / "root" / "recipe.yaml").write_text("embed: {model: ViT-B-16}\n")
    assert precompute_neighbors.main(arguments(tmp_path / "root", tmp_path / "root")) == 0
    assert (tmp_path / "root" / "recipe.yaml").read_text() == "embed: {model: ViT-B-16}\n"
    assert precompute_neighbors.main(arguments(tmp_path / "new", tmp_path / "root")) == 0
    assert f"corpus: {tmp_path / 'root'}" in (tmp_path / "new" / "neighbors.yaml").read_text()


# ── what is refused ──


@dataclass(frozen=True)
class Embedded(Stage[None]):
    """As a run that has embedded with a model has it."""

    model: str
    name, version = "embed", 1

    def settings(self) -> Mapping[str, Json]:
        return {"model": self.model, "weights": "laion"}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        out.json("embedded", "{stem}.json", None)
        return Counts(0, 0)


def made(root: Path, *stages: Stage[Any]) -> str:
    Run(str(root), list(stages)).execute(LocalExecutor())
    return str(root)


def refused(corpus: str, **recipe: Any) -> str:
    with pytest.raises((InputError, RecipeError)) as caught:
        neighbor_stages(NeighborsRecipe(**recipe), corpus)
    return str(caught.value)


def test_more_neighbors_than_rows_are_refused(roots: Path) -> None:
    near = str(roots / "near")
    assert "k is 150, and of the 150 rows of the databases a query may find 149" in refused(near, k=150)
    assert neighbor_stages(NeighborsRecipe(k=149), near)
    assert neighbor_stages(NeighborsRecipe(k=150, databases=(near, str(roots / "far"))), near)


def test_what_cannot_be_compared_is_refused_by_name(tmp_path: Path) -> None:
    wide = made(tmp_path / "wide", Drawn(rows=20, width=32))
    small = made(tmp_path / "small", Embedded("ViT-B-32"), Drawn(rows=20))
    large = made(tmp_path / "large", Embedded("ViT-L-14"), Drawn(rows=20))
    told = refused(wide, databases=(small,))
    assert f"the vectors of {small} are 64 wide, and those of {wide} 32" in told
    told = refused(small, databases=(small, large))
    assert f"{small}: ViT-B-32, weights laion; {large}: ViT-L-14, weights laion" in told
    texts, images = (
        index(tmp_path / key, Drawn(rows=60, shards=1), key=key, factory="IVF1,Flat", min_recall=None)
        for key in ("text", "image")
    )
    told = refused(small, databases=(texts, images))
    assert f"{images} is searched by its image vectors, and a database before it by its text vectors" in told


def test_databases_that_are_not_finished_are_refused(roots: Path, tmp_path: Path) -> None:
    near = str(roots / "near")
    assert f"{near} has no finished index" in refused(near, engine="index")
    assert f"{near} and {near} hold the same corpus" in refused(near, databases=(near, near))
    assert "nowhere/corpus is not whole" in refused(near, databases=(str(tmp_path / "nowhere"),))
    assert "nowhere/corpus is not whole" in refused(str(tmp_path / "nowhere"), databases=(near,))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_told(roots: Path, tmp_path: Path) -> None:
    report = precompute(tmp_path, roots / "near", device="cuda", **ASKED)
    assert "neighbors.device is cuda, but torch" in str(report)
    assert report.exit_code == 1


def test_an_index_whose_corpus_was_made_anew_is_refused(tmp_path: Path) -> None:
    root = Path(index(tmp_path / "root", Drawn(rows=400), factory="IVF1,Flat", min_recall=None))
    shutil.rmtree(root / "corpus")
    Whole.open.cache_clear()
    Run(str(root), [Drawn(rows=400, seed=6)]).execute(LocalExecutor())
    assert "is another one than its index was measured with" in refused(str(root))


def test_a_depth_below_what_every_query_is_given_is_refused() -> None:
    with pytest.raises(ValueError, match="set depth ≥ 30"):
        NeighborsRecipe(depth=29)


def test_a_root_made_for_another_database_is_refused(roots: Path, tmp_path: Path) -> None:
    precompute(tmp_path, roots / "near", **ASKED)
    with pytest.raises(FingerprintMismatch, match="neighbor_keys was made with other settings"):
        precompute(tmp_path, roots / "near", databases=[str(roots / "far")], **ASKED)
