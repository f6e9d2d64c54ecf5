"""Whatever is wrong with the neighbours is found and named; what is right passes."""

import copy
import re
import shutil
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from jobs.verify_neighbors import main
from pipeline.commits import Whole
from pipeline.errors import InputError
from pipeline.executor import LocalExecutor
from pipeline.recipe import Json
from pipeline.run import Base, Run
from pipeline.schemas import NEIGHBORS, SAMPLES
from pipeline.stage import Counts, Input, Need, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.interleave import InterleaveRecipe, interleave_stages
from stages.interleave.samples import Interleaved
from stages.neighbors.verify import Check, Findings, verify
from stages.neighbors.verify.rules import caption_key
from tests.stages.index.corpora import Drawn, unit
from tests.stages.neighbors.crowded import Crowded, found_in, precompute, rule_broken

K, DEPTH = 3, 40
Row = dict[str, Any]
RULES = ("pair", "image_id", "sha256", "phash", "caption")


# ── corpora in which every rule has something to remove, and neighbours made the slow, obvious way ──


@dataclass(frozen=True)
class Mates(Drawn):
    """Rows 2n and 2n + 1 are near each other, and the same by one rule; by which one goes round in fours."""

    width: int = 16
    shards: int = 3
    source: str = "toy"

    @property
    def images(self) -> npt.NDArray[np.float16]:
        rng = np.random.default_rng(self.seed)
        centers = np.repeat(rng.standard_normal((self.rows // 2 + 1, self.width)), 2, axis=0)[: self.rows]
        return unit(centers + 0.05 * rng.standard_normal((self.rows, self.width)))

    def row(self, number: int) -> Row:
        pair, mate = divmod(number, 2)
        rules: list[Row] = [
            {"image_id": f"image {pair}"},
            {"stored_sha256": f"{pair:064x}"},
            {"phash": pair},
            {"caption": ["Ein STRASSENBAHN-wagen, 5!", "ein ＳＴＲＡSSENBAHN … wagen 5"][mate] + f" {pair}"},
        ]
        return {
            **super().row(number),
            "pair_id": f"{self.source}-{number:010d}",
            "source": self.source,
            "image_id": f"image {pair}" if pair % 4 == 1 and mate else None,  # of nobody else
            "caption": f"{self.source} {self.seed} {number}",
            "stored_sha256": f"{number + 10**9:064x}",
            "phash": 2**64 - 1 - number % 7,  # shared by pictures that are not alike
            **rules[pair % 4],
        }


@dataclass(frozen=True)
class Terse(Mates):
    """Every third row has one caption, near or far."""

    def row(self, number: int) -> Row:
        return super().row(number) | ({"caption": "A photo."} if number % 3 == 0 else {})


@dataclass(frozen=True)
class Alive(Stage[None]):
    bits: npt.NDArray[np.bool_]
    name, version = "alive", 1

    def settings(self) -> Mapping[str, Json]:
        return {}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        out.array("alive", "{stem}.npy", np.packbits(self.bits, bitorder="little"))
        return Counts(0, 0)


@dataclass(frozen=True)
class Written(Stage[None]):
    """Writes what it is told: files by corpus shard, two to a shard of its own."""

    files: Mapping[str, pa.Table]
    resolved: Mapping[str, Json]
    name, version = "neighbors", 1

    @property
    def inputs(self) -> Sequence[Input]:
        asking = self.resolved.get("corpus")
        return [Input("corpus", Need.WHOLE, str(asking), "corpus")] if asking else []

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        names = sorted(self.files)
        parts = [names[start : start + 2] for start in range(0, len(names), 2)]
        return Plan([Shard(shard_id(n), {"files": part}) for n, part in enumerate(parts)], self.resolved)

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        tables = {name: self.files[name] for name in task.params["files"]}
        for name, table in tables.items():
            out.table(f"neighbors_{name}", f"{name}-{{stem}}.parquet", table)
        rows = sum(table.num_rows for table in tables.values())
        return Counts(rows, rows)


@dataclass(frozen=True)
class Candidate:
    database: int
    row_id: int
    row: Row
    image: npt.NDArray[np.float64]
    key: npt.NDArray[np.float64]

    @property
    def id(self) -> str:
        return str(self.row["pair_id"])


@dataclass(frozen=True)
class World:
    """Queries, databases of one or several corpora, and which of their rows may be found."""

    folder: Path
    query: Mates
    databases: Sequence[Sequence[Mates]]
    key: str = "image"
    dead: Mapping[int, Sequence[int]] | None = None  # database → row ids

    @cached_property
    def candidates(self) -> list[Candidate]:
        found = []
        for number, corpora in enumerate(self.databases):
            rows = [corpus.row(n) for corpus in corpora for n in range(corpus.rows)]
            images, texts = (np.concatenate([getattr(c, name) for c in corpora]) for name in ("images", "captions"))
            mixed = unit(images.astype(np.float64) + texts.astype(np.float64))
            keys = {"image": images, "text": texts, "mixed": mixed}[self.key].astype(np.float64)
            wide = images.astype(np.float64)
            found += [Candidate(number, n, row, wide[n], keys[n]) for n, row in enumerate(rows)]
        return found

    @cached_property
    def queries(self) -> npt.NDArray[np.float64]:
        return self.query.images.astype(np.float64)

    def ranked(self, query: int) -> list[Candidate]:
        alive = [c for c in self.candidates if c.row_id not in (self.dead or {}).get(c.database, ())]
        return sorted(alive, key=lambda c: (-(self.queries[query] @ c.key), c.database, c.row_id))

    def entry(self, query: int, found: Candidate) -> Row:
        similarity = float(np.float32(self.queries[query] @ found.key))
        place = {"database": found.database, "row_id": found.row_id, "pair_id": found.id}
        return {**place, "similarity": similarity, "caption": found.row["caption"]}

    def rule(self, query: int, other: Candidate) -> str | None:
        ours, theirs = self.query.row(query), other.row
        if ours["pair_id"] == theirs["pair_id"]:
            return "pair"
        if ours["image_id"] and (ours["image_id"], ours["source"]) == (theirs["image_id"], theirs["source"]):
            return "image_id"
        if ours["stored_sha256"] == theirs["stored_sha256"]:
            return "sha256"
        if ours["phash"] == theirs["phash"] and self.queries[query] @ other.image >= 0.98:
            return "phash"
        return "caption" if words(ours["caption"]) == words(theirs["caption"]) else None

    def listing(self, query: int, depth: int = DEPTH) -> Row:
        kept: list[Row] = []
        removed = dict.fromkeys(RULES, 0)
        for candidate in self.ranked(query)[:depth]:
            broken = self.rule(query, candidate)
            if broken:
                removed[broken] += 1
            else:
                kept.append(self.entry(query, candidate))
            if len(kept) == K:
                break
        pair_id = self.query.row(query)["pair_id"]
        return {"pair_id": pair_id, "neighbors": kept, "removed": removed, "shortfall": K - len(kept)}

    @cached_property
    def listings(self) -> list[Row]:
        return [self.listing(query) for query in range(self.query.rows)]

    def root_of(self, corpus: Mates) -> str:
        root = self.folder / f"{corpus.source}-{corpus.seed}"
        if not root.exists():
            finish(root, corpus)
        return str(root)

    def resolved(self) -> Row:
        return {"k": K, "depth": DEPTH, "key": self.key, "engine": "exact"} | {
            "corpus": self.root_of(self.query),
            "databases": [self._database(n, corpora) for n, corpora in enumerate(self.databases)],
        }

    def _database(self, number: int, corpora: Sequence[Mates]) -> Row:
        first_ids = np.cumsum([0, *[corpus.rows for corpus in corpora]]).tolist()
        said = []
        for first_id, corpus in zip(first_ids, corpora, strict=False):
            root = self.root_of(corpus)
            identity = Whole.open(root, "corpus").identity
            said.append({"root": root, "identity": identity, "first_id": first_id, "rows": corpus.rows})
        return {"root": said[0]["root"], "corpora": said, "alive": self._alive(number, first_ids[-1])}

    def _alive(self, number: int, rows: int) -> Row | None:
        if not self.dead or number not in self.dead:
            return None
        root = self.folder / f"alive-{number}"
        if not root.exists():
            finish(root, Alive(~np.isin(np.arange(rows), self.dead[number])))
        return {"root": str(root), "stage": "alive", "shard": "000000", "name": "alive"}

    def write(self, root: Path, listings: Sequence[Row], **plan: Any) -> str:
        bounds = np.linspace(0, self.query.rows, self.query.shards + 1).astype(int)
        files = {
            shard_id(n): pa.Table.from_pylist(list(listings[a:b]), schema=NEIGHBORS)
            for n, (a, b) in enumerate(zip(bounds, [*bounds[1:-1], None], strict=False))
        }
        return finish(root, Written(files, self.resolved() | plan))


def words(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = [c if unicodedata.category(c)[0] in "LMN" else " " for c in folded]
    return re.sub(" +", " ", "".join(kept)).strip() or text


def finish(root: Path, stage: Stage[Any]) -> str:
    report = Run(str(root), [stage]).execute(LocalExecutor())
    assert report.exit_code == 0, str(report)
    return str(root)


TOY = Mates(rows=90)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), TOY, [[TOY]])


def faults(findings: Findings) -> dict[Check, int]:
    return {check: number for check, number in findings.faults.items() if number}


# ── what is right passes ──


@pytest.mark.parametrize("key", ["image", "text", "mixed"])
def test_a_clean_root_passes_whatever_the_databases(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, third = Mates(rows=50, seed=8, source="other"), Mates(rows=30, seed=5, source="third", shards=1)
    clean = World(tmp_path, TOY, [[TOY], [other, third, TOY]], key, dead={1: range(3, 170, 3)})
    removed = [listing["removed"] for listing in clean.listings]
    assert all(any(counts[rule] for counts in removed) for rule in RULES)
    assert main([clean.write(tmp_path / "run", clean.listings), "--sample", "90"]) == 0
    printed = capsys.readouterr().out
    assert "all 260 database rows: 90 of 90 rows" in printed
    assert printed.splitlines()[-1].startswith("No leak: all 270 neighbours of all 90 rows")


def test_starved_queries_pass_where_their_candidates_ran_out(tmp_path: Path) -> None:
    world = World(tmp_path, TOY, [[TOY]], dead={0: range(1, TOY.rows, 4)})
    starved = [world.listing(query, depth=4) for query in range(TOY.rows)]
    assert {listing["shortfall"] for listing in starved} == {0, 1}
    findings = verify(world.write(tmp_path / "run", starved, depth=4), TOY.rows, 0)
    assert faults(findings) == {}
    assert findings.checked[Check.MEMBERS] == TOY.rows


def test_removals_behind_the_last_neighbor_are_not_counted(tmp_path: Path) -> None:
    terse = World(tmp_path, Terse(rows=60), [[Terse(rows=60)]])
    deeper = [terse.rule(0, candidate) for candidate in terse.ranked(0)].count("caption")
    assert 0 < terse.listings[0]["removed"]["caption"] < deeper
    findings = verify(terse.write(tmp_path / "run", terse.listings), 60, 0)
    assert faults(findings) == {}
    assert findings.checked[Check.REMOVED] == 60


def test_a_database_smaller_than_k_passes(tmp_path: Path) -> None:
    small = World(tmp_path, TOY, [[Mates(rows=2, source="small", shards=1)]])
    assert {listing["shortfall"] for listing in small.listings} == {1, 2}
    assert faults(verify(small.write(tmp_path / "run", small.listings), 30, 0)) == {}


def test_what_was_not_sampled_is_said(world: World, tmp_path: Path) -> None:
    findings = verify(world.write(tmp_path, world.listings), 7, 1)
    assert findings.checked[Check.MEMBERS] == 7
    assert "7 of 90 rows (seed 1).\nOf the others, neither better neighbours" in str(findings)


# ── a leak is found and named ──


def mates(world: World, rule: str) -> tuple[int, Candidate]:
    """A query and a candidate that breaks this rule, and no rule before it."""
    pairs = ((query, other) for query in range(world.query.rows) for other in world.candidates)
    return next((query, other) for query, other in pairs if world.rule(query, other) == rule)


@pytest.mark.parametrize("rule", RULES)
def test_one_leak_is_found_by_its_rule_and_named(
    rule: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query, other = mates(world, rule)
    listings = copy.deepcopy(world.listings)
    leaking = [*listings[query]["neighbors"][: K - 1], world.entry(query, other)]
    listings[query]["neighbors"] = sorted(leaking, key=lambda entry: -entry["similarity"])
    root = world.write(tmp_path, listings)
    assert main([root, "--sample", "0"]) == 1
    printed = capsys.readouterr().out
    assert f"000000 {TOY.row(query)['pair_id']}: neighbour {other.id}" in printed
    assert printed.endswith("\n1 fault\n")
    assert faults(verify(root, 0, 0)) == {Check[rule.upper()]: 1}


# ── whatever else is wrong ──


def first(listings: list[Row]) -> list[Row]:
    found: list[Row] = listings[0]["neighbors"]
    return found


def swap_order(listings: list[Row]) -> None:
    first(listings).reverse()


def other_similarity(listings: list[Row]) -> None:
    first(listings)[1]["similarity"] = float(np.nextafter(np.float32(first(listings)[1]["similarity"]), np.float32(0)))


def not_a_number(listings: list[Row]) -> None:
    first(listings)[1]["similarity"] = float("nan")


def swap_captions(listings: list[Row]) -> None:
    one, two, _ = first(listings)
    one["caption"], two["caption"] = two["caption"], one["caption"]


def other_pair_id(listings: list[Row]) -> None:
    first(listings)[0]["pair_id"] = "toy-9999999999"


def row_beyond(listings: list[Row]) -> None:
    first(listings)[2]["row_id"] = TOY.rows


def database_beyond(listings: list[Row]) -> None:
    first(listings)[2]["database"] = -1


def repeat(listings: list[Row]) -> None:
    first(listings)[2] = first(listings)[1]


def wrong_shortfall(listings: list[Row]) -> None:
    listings[0]["shortfall"] = 1


def too_many(listings: list[Row]) -> None:
    listings[0]["shortfall"] = -1
    listings[0]["neighbors"] *= 2


def missing_row(listings: list[Row]) -> None:
    del listings[88]


def extra_row(listings: list[Row]) -> None:
    listings.append(listings[89])


def swapped_rows(listings: list[Row]) -> None:
    listings[0], listings[1] = listings[1], listings[0]


@pytest.mark.parametrize(
    ("tamper", "expected", "told"),
    [
        (swap_order, {Check.ORDER: 1}, "stands before"),
        (other_similarity, {Check.SIMILARITY: 1}, "instead of 0."),
        (not_a_number, {Check.SIMILARITY: 1}, "nan instead of 0."),
        (swap_captions, {Check.CAPTIONS: 2}, "instead of"),
        (other_pair_id, {Check.PAIR_IDS: 1}, "toy-9999999999 instead of toy-"),
        (row_beyond, {Check.IDS: 1}, "database 0 has no row 90"),
        (database_beyond, {Check.IDS: 1}, "database -1 has no row"),
        (repeat, {Check.TWICE: 1}, "is listed twice"),
        (wrong_shortfall, {Check.SIZES: 1}, "3 neighbours and a shortfall of 1, where k is 3"),
        (too_many, {Check.SIZES: 1, Check.TWICE: 1, Check.ORDER: 1}, "6 neighbours and a shortfall of -1"),
        (missing_row, {Check.ROWS: 2}, "000002 toy-0000000088: has no row"),
        (extra_row, {Check.ROWS: 1}, "row 30, where the corpus shard has 30"),
        (swapped_rows, {Check.ROWS: 2}, "000000 toy-0000000000: stands at row 1 instead of 0"),
    ],
)
def test_a_fault_is_counted_once_and_told(
    tamper: Callable[[list[Row]], None], expected: dict[Check, int], told: str, world: World, tmp_path: Path
) -> None:
    listings = copy.deepcopy(world.listings)
    tamper(listings)
    findings = verify(world.write(tmp_path, listings), 0, 0)
    assert faults(findings) == expected
    assert told in str(findings)
    assert findings.exit_code == 1


def test_a_row_that_may_not_be_found_is_named(world: World, tmp_path: Path) -> None:
    dead = World(tmp_path, TOY, [[TOY]], dead={0: [first(world.listings)[0]["row_id"]]})
    listings = [world.listings[0], *dead.listings[1:]]
    findings = verify(dead.write(tmp_path / "run", listings), 0, 0)
    assert faults(findings) == {Check.ALIVE: 1}
    assert f"000000 toy-0000000000: neighbour {first(world.listings)[0]['pair_id']}" in str(findings)


def test_equal_similarities_stand_in_the_order_of_their_databases(tmp_path: Path) -> None:
    twice = World(tmp_path, TOY, [[TOY], [TOY]])
    listings = copy.deepcopy(twice.listings)
    one, two, _ = first(listings)
    assert (one["similarity"], one["database"], two["database"]) == (two["similarity"], 0, 1)
    first(listings)[:2] = [two, one]
    assert faults(verify(twice.write(tmp_path / "run", listings), TOY.rows, 0)) == {Check.ORDER: 1}


def test_no_more_than_ten_of_a_kind_are_named_and_all_are_counted(world: World, tmp_path: Path) -> None:
    listings = [listing | {"shortfall": 9} for listing in world.listings]
    findings = verify(world.write(tmp_path, listings), 0, 0)
    assert faults(findings) == {Check.SIZES: TOY.rows}
    assert len(findings.examples[Check.SIZES]) == 10


def test_a_better_neighbor_left_out_is_found_in_the_sample(world: World, tmp_path: Path) -> None:
    listings = copy.deepcopy(world.listings)
    left_out = first(listings).pop(0)
    listings[0]["shortfall"] = 1
    findings = verify(world.write(tmp_path, listings), TOY.rows, 0)
    assert faults(findings) == {Check.MEMBERS: 1}
    assert f"000000 toy-0000000000: {left_out['pair_id']} is missing" in str(findings)


def test_wrong_counts_of_removals_are_found_in_the_sample(world: World, tmp_path: Path) -> None:
    listings = copy.deepcopy(world.listings)
    listings[0]["removed"] |= {"pair": 0, "caption": 1}
    findings = verify(world.write(tmp_path, listings), TOY.rows, 0)
    assert faults(findings) == {Check.REMOVED: 1}
    assert "pair 0, image_id 1, sha256 0, phash 0, caption 1 instead of pair 1, image_id 1" in str(findings)


def test_what_an_approximate_search_misses_is_recall_and_no_fault(world: World, tmp_path: Path) -> None:
    listings = copy.deepcopy(world.listings)
    for listing in listings[:30]:
        del listing["neighbors"][0]
        listing["shortfall"] = 1
    findings = verify(world.write(tmp_path, listings, engine="index"), TOY.rows, 0)
    assert faults(findings) == {}
    assert findings.recall is not None
    assert findings.recall.share == pytest.approx(1 - 30 / 90 / K)
    low, high = findings.recall.interval()
    assert low < findings.recall.share < high
    assert "recall@3 0.8889" in str(findings)


def test_small_blocks_find_the_same(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listings = copy.deepcopy(world.listings)
    for tamper in (swap_order, swap_captions, missing_row):
        tamper(listings)
    first(listings).pop()
    root = world.write(tmp_path, listings)
    whole = str(verify(root, 50, 0))
    for name, size in {"blocks.BLOCK_ROWS": 20, "rows.WIDENED": 7, "sample.WIDENED": 11, "sample.AT_ONCE": 9}.items():
        monkeypatch.setattr(f"stages.neighbors.verify.{name}", size)
    assert str(verify(root, 50, 0)) == whole


# ── five-pair samples ──

CROWD, OTHERS = Crowded(rows=90), Crowded(rows=60, seed=8, own="far", shards=2)
APART = Crowded(rows=60, seed=8, own="far", common="apart", shards=2)  # no pair id of another corpus
BAND: Row = {"metric": "cosine", "lo": 0.3, "hi": 0.9}
IMAGES, TEXTS = CROWD.images.astype(np.float64), CROWD.captions.astype(np.float64)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus, others and apart: corpora; found and both: neighbours of the corpus, in itself, and in others too;
    samples and bare: five-pair samples with the neighbours found, and with none."""
    folder = tmp_path_factory.mktemp("samples")
    for name, corpus in {"corpus": CROWD, "others": OTHERS, "apart": APART}.items():
        finish(folder / name, corpus)
    corpora = [str(folder / name) for name in ("corpus", "others")]
    assert precompute(folder / "found", folder / "corpus", k=6, depth=80).exit_code == 0
    assert precompute(folder / "both", folder / "corpus", databases=corpora, k=6, depth=80).exit_code == 0
    mined(folder / "samples", folder, neighbors="found")
    mined(folder / "bare", folder)
    return folder


def stages_of(folder: Path, corpora: Sequence[str] = ("corpus",), **recipe: Any) -> list[Stage[Any]]:
    if "neighbors" in recipe:
        recipe["neighbors"] = str(folder / recipe["neighbors"])
    probed = {"probe_queries": 10, "queries_per_task": 30, "materialize": False, "max_starved": 1}
    return interleave_stages(InterleaveRecipe(**{**BAND, **probed, **recipe}), [str(folder / name) for name in corpora])


def mined(root: Path, folder: Path, **recipe: Any) -> str:
    report = Run(str(root), stages_of(folder, **recipe)).execute(LocalExecutor())
    assert report.exit_code == 0, str(report)
    return str(root)


@dataclass(frozen=True)
class Doctored(Interleaved):
    """The first shard of other samples, tampered with."""

    honest: str = ""
    tamper: Callable[[list[Row]], None] = list.clear
    version = 2

    def process(self, task: Task, out: ShardWriter, state: Any) -> Counts:
        rows = Whole.open(self.honest, "interleaved").read(task.id).table("samples").to_pylist()
        if task.id == "000000":
            self.tamper(rows)
        out.table("samples", "samples_{stem}.parquet", pa.Table.from_pylist(rows, schema=SAMPLES))
        return Counts(len(rows), len(rows))


def doctored(root: Path, folder: Path, honest: str, tamper: Callable[[list[Row]], None]) -> str:
    *others, last, _ = stages_of(folder, **({"neighbors": "found"} if honest == "samples" else {}))
    assert isinstance(last, Interleaved)
    forged = Doctored(last.corpora, last.recipe, last.stored, str(folder / honest), tamper)
    report = Run(str(root), [*others, forged], Base(root=str(folder / honest))).execute(LocalExecutor())
    assert report.exit_code == 0, str(report)
    return str(root)


@pytest.mark.parametrize(
    "recipe",
    [
        {"neighbors": "found"},
        {"neighbors": "both", "metric": "l2", "lo": 0.7, "hi": 1.3},
        {"metric": "l2_squared", "lo": 0.5, "hi": 1.7},
        {"neighbors": "found", "lo": 0, "hi": 1.2, "drop_same_caption": True},
        {"neighbors": "found", "lo": 0.1, "hi": 0.4},
        {"neighbors": "found", "lo": 0.1, "hi": 0.4, "on_starved": "short"},
        {"sources": ["coco"]},
        {"corpora": ["apart", "corpus"], "supports": 7},
        {"neighbors": "found", "lo": 1.9, "hi": 1.95},
    ],
)
def test_honest_samples_pass(recipe: Row, roots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = mined(tmp_path, roots, **recipe)
    assert main([str(roots / recipe.get("neighbors", "found")), "--interleaved", samples]) == 0
    printed = capsys.readouterr().out
    assert "No leak" in printed
    rows = 150 if "corpora" in recipe else 90
    assert f"Mined again by brute force over all {rows} pairs: {rows} queries (seed 0)." in printed


def test_of_honest_samples_everything_is_checked(roots: Path) -> None:
    findings = verify(str(roots / "found"), 90, 0, str(roots / "samples"))
    assert faults(findings) == {}
    assert set(Check) - set(findings.checked) == {Check.OWN_CAPTION}
    rows = Whole.open(str(roots / "samples"), "interleaved").tables("samples").to_pylist()
    shown = sum(len(neighbors) for row in rows for neighbors in row["neighbors"])
    assert findings.checked[Check.STORED] == shown > 100
    stored = sum(len(neighbors) for row in rows for neighbors in stored_for(roots, row))
    assert findings.checked[Check.LEFT_OUT] == stored - shown > 100
    assert "All 90 five-pair samples were checked for leaks against all their pairs." in str(findings)


def stored_for(roots: Path, sample: Row) -> list[list[Row]]:
    found = found_in(roots / "found")
    return [found[pair["row_id"]]["neighbors"] for pair in sample["pairs"]]


@pytest.mark.parametrize("rule", RULES)
def test_a_neighbor_that_is_a_leak_against_another_pair_of_its_sample_is_named(
    rule: str, roots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []

    def put_back(rows: list[Row]) -> None:
        """One of those left out, that breaks this rule alone, and against one pair alone."""
        for sample in rows:
            for shown, stored, pair in zip(
                sample["neighbors"], stored_for(roots, sample), sample["pairs"], strict=True
            ):
                for neighbor in stored:
                    other = CROWD.row(neighbor["row_id"])
                    members = [(member["pair_id"], member["row_id"]) for member in sample["pairs"]]
                    broken = [(target, found) for target, row in members if (found := rule_of(row, other["row_id"]))]
                    if [found for _, found in broken] == [rule]:
                        shown[:] = [one for one in stored if one in shown or one is neighbor]
                        told.append(f"{other['pair_id']} of {pair['pair_id']} against {broken[0][0]}")
                        return

    samples = doctored(tmp_path, roots, "samples", put_back)
    assert main([str(roots / "found"), "--sample", "90", "--interleaved", samples]) == 1
    printed = capsys.readouterr().out
    assert f": neighbour {told[0]}\n" in printed
    assert printed.endswith("\n1 fault\n")
    assert faults(verify(str(roots / "found"), 0, 0, samples)) == {Check[rule.upper()]: 1}


def rule_of(row: int, other: int) -> str | None:
    return rule_broken(CROWD.row(row), CROWD.row(other), float(IMAGES[row] @ IMAGES[other]))


def fullest(rows: list[Row]) -> tuple[list[Row], Row]:
    """The longest list of neighbours, and its sample."""
    lists = [(neighbors, row) for row in rows for neighbors in row["neighbors"]]
    return max(lists, key=lambda found: len(found[0]))


def leave_out(rows: list[Row]) -> None:
    del fullest(rows)[0][1]


def turn_round(rows: list[Row]) -> None:
    neighbors, _ = fullest(rows)
    neighbors[:2] = [neighbors[1], neighbors[0]]


def show_twice(rows: list[Row]) -> None:
    neighbors, _ = fullest(rows)
    neighbors.insert(1, neighbors[0])


def truncate(rows: list[Row]) -> None:
    for row in rows:
        row["neighbors"] = [neighbors[:1] for neighbors in row["neighbors"]]


def show_another(rows: list[Row]) -> None:
    """A pair that is no leak, and none of those stored for the query."""
    sample = rows[0]
    members = [pair["row_id"] for pair in sample["pairs"]]
    row = next(n for n in range(89, 0, -1) if not any(rule_of(member, n) for member in members))
    told = CROWD.row(row)
    sample["neighbors"][4].append(
        {
            "database": 0,
            "row_id": row,
            "pair_id": told["pair_id"],
            "similarity": float(np.float32(IMAGES[members[4]] @ IMAGES[row])),
            "caption": told["caption"],
        }
    )


def change(neighbor: str, value: Any) -> Callable[[list[Row]], None]:
    def tamper(rows: list[Row]) -> None:
        fullest(rows)[0][0][neighbor] = value

    return tamper


def pair_told(name: str, value: Any) -> Callable[[list[Row]], None]:
    def tamper(rows: list[Row]) -> None:
        rows[0]["pairs"][1][name] = value

    return tamper


def nudge(column: str) -> Callable[[list[Row]], None]:
    def tamper(rows: list[Row]) -> None:
        rows[0][column][2] = float(np.nextafter(np.float32(rows[0][column][2]), np.float32(0)))

    return tamper


def null_in_order(rows: list[Row]) -> None:
    rows[0]["order"][1] = None


def null_neighbor(rows: list[Row]) -> None:
    rows[0]["neighbors"][1] = [None]


def no_neighbors(rows: list[Row]) -> None:
    rows[0]["neighbors"] = None


def other_order(rows: list[Row]) -> None:
    rows[0]["order"].reverse()


def order_beyond(rows: list[Row]) -> None:
    rows[0]["order"] = [4, 1, 2, 3]


def too_few_distances(rows: list[Row]) -> None:
    rows[0]["distances"].pop()


def twice(rows: list[Row]) -> None:
    rows.append(rows[3])


@pytest.mark.parametrize(
    ("tamper", "expected", "told"),
    [
        (leave_out, {Check.LEFT_OUT: 1}, ": neighbour "),
        (turn_round, {Check.STORED_ORDER: 1}, ": neighbour "),
        (show_twice, {Check.STORED_ORDER: 1}, ": neighbour "),
        (show_another, {Check.STORED: 1}, ": neighbour "),
        (change("similarity", 0.5), {Check.SIMILARITY: 1}, "0.5 instead of 0."),
        (change("caption", "another"), {Check.CAPTIONS: 1}, "another instead of"),
        (change("pair_id", "toy-1"), {Check.PAIR_IDS: 1}, "toy-1 instead of"),
        (change("row_id", 90), {Check.STORED: 1, Check.LEFT_OUT: 1}, ": neighbour "),
        (change("database", 1), {Check.STORED: 1, Check.LEFT_OUT: 1}, ": neighbour "),
        (pair_told("caption", "another"), {Check.SAMPLE_PAIRS: 1}, ": caption another instead of"),
        (pair_told("offset", 7), {Check.SAMPLE_PAIRS: 1}, ": offset 7 instead of 512"),
        (pair_told("row_id", 90), {Check.SAMPLE_ROWS: 1}, "one of its pairs is no row of the corpus"),
        (pair_told("corpus", 1), {Check.SAMPLE_ROWS: 1}, "one of its pairs is no row of the corpus"),
        (pair_told("pair_id", "toy-1"), {Check.SAMPLE_COLUMNS: 1}, "sample "),
        (nudge("distances"), {Check.DISTANCE: 1}, " instead of 0."),
        (nudge("caption_similarities"), {Check.CAPTION_SIMILARITY: 1}, " instead of "),
        (null_in_order, {Check.SAMPLE_FILES: 1}, "lists a null among its order"),
        (null_neighbor, {Check.SAMPLE_FILES: 1}, "lists a null among its neighbors"),
        (no_neighbors, {Check.SAMPLE_COLUMNS: 1}, "sample "),
        (other_order, {Check.SAMPLE_COLUMNS: 1}, "sample "),
        (order_beyond, {Check.SAMPLE_COLUMNS: 1}, "sample "),
        (too_few_distances, {Check.SAMPLE_COLUMNS: 1}, "sample "),
        (twice, {Check.SAMPLE_ONCE: 1}, "sample "),
    ],
)
def test_a_fault_of_a_sample_is_counted_once_and_told(
    tamper: Callable[[list[Row]], None], expected: dict[Check, int], told: str, roots: Path, tmp_path: Path
) -> None:
    findings = verify(str(roots / "found"), 0, 0, doctored(tmp_path, roots, "samples", tamper))
    assert faults(findings) == expected
    assert all(told in findings.examples[check][0] for check in expected)
    assert findings.exit_code == 1


def test_a_list_cut_short_is_found_at_every_neighbor_that_is_missing(roots: Path, tmp_path: Path) -> None:
    rows = Whole.open(str(roots / "samples"), "interleaved").read("000000").table("samples").to_pylist()
    missing = sum(max(len(neighbors) - 1, 0) for row in rows for neighbors in row["neighbors"])
    findings = verify(str(roots / "found"), 0, 0, doctored(tmp_path, roots, "samples", truncate))
    assert faults(findings) == {Check.LEFT_OUT: missing}


def given(row: Row, supports: Sequence[int]) -> None:
    """The sample tells truly of other supports, in the order given."""
    query = row["pairs"][-1]["row_id"]
    told = [CROWD.row(number) for number in supports]
    columns = ("pair_id", "caption", "input", "shard", "offset", "bytes")
    named = zip(supports, told, strict=True)
    pairs = [{"corpus": 0, "row_id": n} | {name: pair[name] for name in columns} for n, pair in named]
    row["pairs"] = [*pairs, row["pairs"][-1]]
    row["supports"], row["order"] = [pair["pair_id"] for pair in told], [*range(len(told))]
    row["distances"] = [float(1 - IMAGES[query] @ IMAGES[number]) for number in supports]
    row["caption_similarities"] = [float(TEXTS[query] @ TEXTS[number]) for number in supports]


def ranked(row: Row) -> tuple[list[int], list[int], int]:
    """Rows of a sample's supports, best first; other candidates, best first; and its query."""
    query = row["pairs"][-1]["row_id"]
    members = [row["pairs"][row["order"].index(place)]["row_id"] for place in range(len(row["order"]))]
    candidates = [
        number
        for number in range(CROWD.rows)
        if rule_of(query, number) in (None, "caption") and 0.3 <= 1 - IMAGES[query] @ IMAGES[number] <= 0.9
    ]
    others = sorted(set(candidates) - {*members}, key=lambda number: -(TEXTS[query] @ TEXTS[number]))
    return members, others, query


def other_ranks(rows: list[Row]) -> None:
    (one, two, *others), _, _ = ranked(rows[0])
    given(rows[0], [two, one, *others])


def fewer(rows: list[Row]) -> None:
    given(rows[0], ranked(rows[0])[0][:3])


def worse(rows: list[Row]) -> None:
    members, others, _ = ranked(rows[0])
    given(rows[0], [*members[:3], others[-1]])


def outside(rows: list[Row]) -> None:
    members, others, query = ranked(rows[0])
    far = [
        number
        for number in set(range(CROWD.rows)) - {*members, *others}
        if rule_of(query, number) in (None, "caption")
        and TEXTS[query] @ TEXTS[number] < TEXTS[query] @ TEXTS[members[2]]
    ]
    given(rows[0], [*members[:3], far[0]])


def same_picture(rows: list[Row]) -> None:
    """One that is in the band nonetheless."""
    for row in rows:
        members, _, query = ranked(row)
        for number in set(range(CROWD.rows)) - {query}:
            if rule_of(query, number) == "sha256" and 0.3 <= 1 - IMAGES[query] @ IMAGES[number] <= 0.9:
                supports = sorted([*members[:3], number], key=lambda support: -(TEXTS[query] @ TEXTS[support]))
                return given(row, supports)


def repeated(rows: list[Row]) -> None:
    one, two, three, _ = ranked(rows[0])[0]
    given(rows[0], [one, two, three, three])


def missing_sample(rows: list[Row]) -> None:
    del rows[5]


@pytest.mark.parametrize(
    ("tamper", "expected", "told"),
    [
        (other_ranks, {Check.RANKED: 1}, ": support "),
        (fewer, {Check.SAMPLE_SIZES: 1, Check.OPTIMAL: 1}, "3 supports of 4"),
        (worse, {Check.OPTIMAL: 1}, " is missing, "),
        (outside, {Check.BAND: 1, Check.OPTIMAL: 1}, "its image cosine is "),
        (same_picture, {Check.SAME_IMAGE: 1, Check.OPTIMAL: 1}, "(sha256)"),
        (repeated, {Check.DISTINCT: 1, Check.OPTIMAL: 1}, "sample "),
        (missing_sample, {Check.OPTIMAL: 1}, "has no sound sample"),
        (twice, {Check.SAMPLE_ONCE: 1}, "sample "),
    ],
)
def test_supports_that_are_not_the_right_ones_are_named(
    tamper: Callable[[list[Row]], None], expected: dict[Check, int], told: str, roots: Path, tmp_path: Path
) -> None:
    findings = verify(str(roots / "found"), 90, 0, doctored(tmp_path, roots, "bare", tamper))
    assert faults(findings) == expected
    assert told in findings.examples[next(iter(expected))][0]


def test_small_blocks_find_the_same_in_samples(roots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = doctored(tmp_path, roots, "samples", truncate)
    whole = str(verify(str(roots / "found"), 50, 0, samples))
    for name in ("rows.WIDENED", "sample.WIDENED", "supports.WIDENED", "rules.WIDENED", "supports.AT_ONCE"):
        monkeypatch.setattr(f"stages.neighbors.verify.{name}", 37)
    assert str(verify(str(roots / "found"), 50, 0, samples)) == whole


def test_a_broken_file_of_samples_is_named(roots: Path, tmp_path: Path) -> None:
    samples = mined(tmp_path, roots, neighbors="found")
    flip(Whole.open(samples, "interleaved").read("000001").path("samples"))
    findings = verify(str(roots / "found"), 90, 0, samples)
    assert faults(findings) == {Check.SAMPLE_FILES: 1}
    assert "its sha256 is another" in str(findings)
    assert "A shard of samples is broken: its samples were not checked, and no query was mined again." in str(findings)


def test_samples_are_not_checked_where_the_stored_neighbors_are_broken(roots: Path, tmp_path: Path) -> None:
    shutil.copytree(roots / "found", tmp_path / "found")
    flip(Whole.open(str(tmp_path / "found"), "neighbors").read("000000").path("neighbors_000001"))
    findings = verify(str(tmp_path / "found"), 0, 0, str(roots / "samples"))
    assert faults(findings) == {Check.FILES: 1}
    assert "The five-pair samples were not checked" in str(findings)


def test_samples_with_other_neighbors_are_refused(roots: Path) -> None:
    with pytest.raises(InputError, match="hold other neighbours than those in .*both"):
        verify(str(roots / "both"), 0, 0, str(roots / "samples"))
    with pytest.raises(InputError, match="interleaved is not whole|interleave_mine is not whole"):
        verify(str(roots / "found"), 0, 0, str(roots / "found"))


def test_samples_of_a_corpus_that_was_made_anew_are_refused(roots: Path, tmp_path: Path) -> None:
    finish(tmp_path / "corpus", CROWD)
    samples = mined(tmp_path / "samples", tmp_path)
    shutil.rmtree(tmp_path / "corpus")
    Whole.open.cache_clear()
    finish(tmp_path / "corpus", OTHERS)
    with pytest.raises(InputError, match="is not the one that the samples in .* were mined from"):
        verify(str(roots / "found"), 0, 0, samples)


# ── broken files, wrong use ──


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "told"), [(cut, "bytes instead of"), (flip, "its sha256 is another"), (Path.unlink, "is missing")]
)
def test_a_broken_file_is_named_and_the_others_are_checked(
    harm: Callable[[Path], None], told: str, world: World, tmp_path: Path
) -> None:
    root = world.write(tmp_path, world.listings)
    whole = Whole.open(root, "neighbors")
    harm(whole.read("000000").path("neighbors_000001"))
    findings = verify(root, TOY.rows, 0)
    assert faults(findings) == {Check.FILES: 1}
    assert (findings.checked[Check.FILES], findings.checked[Check.ROWS]) == (3, 60)
    assert told in str(findings)
    assert "60 of 90 rows" in str(findings)


def test_a_corpus_shard_without_a_file_is_named(world: World, tmp_path: Path) -> None:
    rows = pa.Table.from_pylist(world.listings[:30], schema=NEIGHBORS)
    root = finish(tmp_path, Written({"000000": rows, "000001": rows.drop(["removed"])}, world.resolved()))
    findings = verify(root, 0, 0)
    assert faults(findings) == {Check.FILES: 2}
    assert "000001: data/000001-000000-" in str(findings)
    assert "other columns than NEIGHBORS: pair_id string" in str(findings)
    assert "000002: 0 shards hold a file neighbors_000002 instead of one" in str(findings)


def test_another_corpus_than_the_searched_one_is_refused(world: World, tmp_path: Path) -> None:
    resolved = world.resolved()
    resolved["databases"][0]["corpora"][0]["identity"] = "0" * 64
    root = finish(tmp_path, Written({}, resolved))
    with pytest.raises(InputError, match="is not the one that was searched: identity"):
        verify(root, 0, 0)


def test_another_corpus_than_the_one_that_asked_is_refused(world: World, tmp_path: Path) -> None:
    asking = Mates(rows=30, source="asking", shards=1)
    other = World(tmp_path, asking, [[TOY]])
    root = other.write(tmp_path / "run", other.listings)
    assert verify(root, 0, 0).exit_code == 0
    made = Path(other.root_of(asking))
    shutil.rmtree(made)
    Whole.open.cache_clear()
    finish(made, replace(asking, seed=8))
    with pytest.raises(InputError, match="asking-5/corpus is not the one whose pairs asked"):
        verify(root, 0, 0)


def test_a_plan_that_says_too_little_is_refused(world: World, tmp_path: Path) -> None:
    root = finish(tmp_path, Written({}, {"k": 3}))
    with pytest.raises(InputError, match=r"neighbors/plan.json: corpus: Field required"):
        verify(root, 0, 0)


@pytest.mark.parametrize("argv", [[], ["a", "b"], ["a", "--sample", "-1"], ["a", "--seed", "x"]])
def test_wrong_use_is_told(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "[--sample SAMPLE] [--seed SEED]" in capsys.readouterr().err


def test_a_run_without_finished_neighbors_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "neighbors is not whole" in capsys.readouterr().err


# ── the caption rule ──


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A red ball.", "a RED   ball", True),
        ("ﬁne ＡＢＣ ①", "fine abc 1", True),
        ("Straße", "STRASSE", True),
        ("well-known", "well known", True),
        ("snake_case", "snake case", True),
        ("wellknown", "well-known", False),
        ("कि", "क", False),  # a mark tells words apart
        ("x² + y", "x2 y", True),
        ("🐶", "🐶", True),
        ("🐶", "🐱", False),
        ("!!", "??", False),
        ("", "", True),
    ],
)
def test_captions_are_the_same_by_their_letters_marks_and_digits(one: str, other: str, same: bool) -> None:
    assert (caption_key(one) == caption_key(other)) is same
