"""From corpora to mined supports: the same bytes however the work is done, a probe that tells the truth, a gate that
stops what is in vain, and clear words for what cannot be mined."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.commits import StageFolder, Whole
from pipeline.errors import FingerprintMismatch, InputError, RecipeError
from pipeline.executor import Call, LocalExecutor
from pipeline.recipe import Json
from pipeline.run import Base, Run, RunReport
from pipeline.schemas import BAND_SIZES, COSINES, SUPPORTS
from pipeline.stage import Resources, Stage
from stages.interleave import InterleaveRecipe, engines, interleave_stages
from stages.interleave.corpora import Corpora
from stages.interleave.engines import open_sweep
from stages.interleave.mine import InterleaveMine
from stages.interleave.probe import open_pairs
from stages.interleave.seen import Seen
from stages.interleave.sweep import LEADS
from tests.stages.index.corpora import Drawn, Model, finish, unit
from tests.stages.neighbors.crowded import Crowded, rule_broken
from tests.toys import Numbers, Squares, Total, data_of

NEAR = Crowded(rows=200)
FAR = Crowded(rows=130, seed=8, own="far", common="apart", shards=3)
BANDS: dict[str, dict[str, Json]] = {  # in each some queries starve, and most do not
    "l2": {"metric": "l2", "lo": 0.8, "hi": 1.0},
    "l2_squared": {"metric": "l2_squared", "lo": 0.6, "hi": 1.0},
    "cosine": {"metric": "cosine", "lo": 0.3, "hi": 0.5},
}
BAND = BANDS["l2"]
NEARLY_EMPTY: dict[str, Json] = {"lo": 0.55, "hi": 0.6}
STAGES = (
    "interleave_keys",
    "interleave_probe",
    "interleave_gate",
    "interleave_mine",
    "interleaved",
    "interleave_report",
)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """near and far: corpora without pictures."""
    folder = tmp_path_factory.mktemp("roots")
    for name, corpus in {"near": NEAR, "far": FAR}.items():
        finish(folder / name, [corpus])
    return folder


def stages_of(corpora: Sequence[Path], **recipe: Json) -> list[Stage[Any]]:
    given = {"materialize": False, "max_starved": 0.8, **BAND, **recipe}
    return interleave_stages(InterleaveRecipe(**given), list(map(str, corpora)))


def mine(root: Path, *corpora: Path, base: Path | None = None, last: str = "interleaved", **recipe: Json) -> RunReport:
    """last: stage that is made. The report's pictures take as long as all else, and have tests of their own."""
    every = stages_of(corpora, **recipe)
    stages = every[: 1 + [stage.name for stage in every].index(last)]
    return Run(str(root), stages, Base(root=str(base)) if base else None).execute(LocalExecutor())


def supports_in(root: Path) -> list[dict[str, Any]]:
    """Rows of SUPPORTS, in order."""
    table = Whole.open(str(root), "interleave_mine").tables("supports")
    assert table.schema.equals(SUPPORTS)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


# ── the slow obvious way ──


@dataclass(frozen=True)
class Known:
    """The pairs of some corpora, one after the other, as the test drew them."""

    corpora: Sequence[Drawn]
    told: list[dict[str, Any]] = field(init=False)
    images: npt.NDArray[np.float64] = field(init=False)
    captions: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        told = [corpus.row(number) for corpus in self.corpora for number in range(corpus.rows)]
        object.__setattr__(self, "told", told)
        for side in ("images", "captions"):
            drawn = np.concatenate([getattr(corpus, side) for corpus in self.corpora]).astype(np.float64)
            object.__setattr__(self, side, drawn)

    def of(self, sources: Sequence[str]) -> list[int]:
        return [number for number, row in enumerate(self.told) if not sources or row["source"] in sources]

    def supports(self, recipe: InterleaveRecipe) -> list[dict[str, Any]]:
        """Rows of SUPPORTS, by looking at every pair of pairs that take part."""
        taking_part = self.of(recipe.sources)
        return [self._supports(query, taking_part, recipe) for query in taking_part]

    def _supports(self, query: int, others: Sequence[int], recipe: InterleaveRecipe) -> dict[str, Any]:
        found: list[tuple[float, int, float]] = []
        for other in others:
            image = float(self.images[query] @ self.images[other])
            if not recipe.lo <= distance(recipe.metric, image) <= recipe.hi:
                continue
            rule = rule_broken(self.told[query], self.told[other], image)
            if rule is None or (rule == "caption" and not recipe.drop_same_caption):
                found.append((-float(self.captions[query] @ self.captions[other]), other, image))
        best = sorted(found)[: recipe.supports]
        return {
            "row_id": query,
            "supports": [other for _, other, _ in best],
            "image_cosines": [image for *_, image in best],
            "caption_cosines": [-caption for caption, *_ in best],
        }


def distance(metric: str, cosine: float) -> float:
    read: dict[str, float] = {
        "l2": math.sqrt(max(2 - 2 * cosine, 0)),
        "l2_squared": 2 - 2 * cosine,
        "cosine": 1 - cosine,
    }
    return read[metric]


# ── what is mined ──


@pytest.mark.parametrize("engine", ["sweep", "products"])
@pytest.mark.parametrize("metric", BANDS)
def test_supports_are_those_told_by_hand(metric: str, engine: str, roots: Path, tmp_path: Path) -> None:
    told = {**BANDS[metric], "supports": 3, "engine": engine}
    assert mine(tmp_path, roots / "near", **told).exit_code == 0
    expected = Known([NEAR]).supports(InterleaveRecipe(**told))
    assert supports_in(tmp_path) == expected
    found = [len(row["supports"]) for row in expected]
    assert 0 < found.count(3) < NEAR.rows


@pytest.mark.parametrize(
    "recipe", [{"sources": ["coco"]}, {"drop_same_caption": True}, {"supports": 1}, {"supports": 9}], ids=str
)
def test_supports_of_two_corpora_are_those_told_by_hand(recipe: dict[str, Json], roots: Path, tmp_path: Path) -> None:
    mine(tmp_path, roots / "far", roots / "near", **recipe)
    found = supports_in(tmp_path)
    assert found == Known([FAR, NEAR]).supports(InterleaveRecipe(**BAND, **recipe))
    for first, end, others in (0, FAR.rows, "near"), (FAR.rows, FAR.rows + NEAR.rows, "far"):
        here = [row for row in found if first <= row["row_id"] < end]
        assert any(first <= support < end for row in here for support in row["supports"]), "of its own corpus"
        assert any(not first <= support < end for row in here for support in row["supports"]), others


def test_dropping_equal_captions_changes_what_is_mined(roots: Path, tmp_path: Path) -> None:
    for drop in (False, True):
        mine(tmp_path / str(drop), roots / "near", drop_same_caption=drop)
    told = Known([NEAR]).told
    shared = [
        sum(
            rule_broken(told[row["row_id"]], told[support], 0) == "caption"
            for row in supports_in(tmp_path / str(drop))
            for support in row["supports"]
        )
        for drop in (False, True)
    ]
    assert shared[0] > 20
    assert shared[1] == 0


def test_the_bytes_do_not_depend_on_the_engine(roots: Path, tmp_path: Path) -> None:
    for engine in ("sweep", "products"):  # auto is one of them
        mine(tmp_path / engine, roots / "near", roots / "far", last=STAGES[-1], engine=engine)
    for stage in STAGES:
        sweep, products = (data_of(str(tmp_path / engine), stage) for engine in ("sweep", "products"))
        assert sweep == products, stage


def test_both_leads_of_the_sweep_find_the_same(roots: Path, tmp_path: Path) -> None:
    mine(tmp_path, roots / "near", roots / "far", engine="products")
    recipe, corpora = InterleaveRecipe(**BAND), Corpora.of([str(roots / "near"), str(roots / "far")])
    whole = {source.key: Whole.open(str(source.root), source.stage) for source in corpora.inputs}
    whole["interleave_keys"] = Whole.open(str(tmp_path), "interleave_keys")
    pairs = open_pairs(corpora, recipe, whole)
    mined = supports_in(tmp_path)
    for lead in LEADS:
        found = open_sweep(pairs, recipe, lead).mine(pairs.queries(np.arange(NEAR.rows + FAR.rows)))
        for row, count, *told in zip(mined, found.found, *vars(found).values(), strict=True):
            columns = row["supports"], row["image_cosines"], row["caption_cosines"]
            assert tuple(column[:count].tolist() for column in told) == columns


def test_the_rows_do_not_depend_on_the_queries_of_a_task(roots: Path, tmp_path: Path) -> None:
    for queries in (1, 60, 10_000):
        mine(tmp_path / str(queries), roots / "near", roots / "far", queries_per_task=queries)
    shards = [len(StageFolder(str(tmp_path / str(queries)), "interleaved").committed()) for queries in (1, 60, 10_000)]
    assert shards == [NEAR.shards + FAR.shards, 2 + 2, 2]
    for stage, table in {"interleave_mine": "supports", "interleaved": "samples"}.items():
        small, some, large = (Whole.open(str(tmp_path / str(q)), stage).tables(table) for q in (1, 60, 10_000))
        assert small.equals(some)
        assert small.equals(large)


class OneWorker(InterleaveMine):
    @property
    def resources(self) -> Resources:
        return replace(super().resources, workers=1)


@pytest.mark.slow  # the job's own tests have a short one
@pytest.mark.parametrize("workers", [1, 2])
def test_on_ray_the_bytes_are_the_same_with_any_number_of_workers(
    workers: int, ray_cluster: None, roots: Path, tmp_path: Path
) -> None:
    from pipeline.ray_executor import RayExecutor

    corpora = (roots / "near", roots / "far")
    mine(tmp_path / "local", *corpora, last=STAGES[-1], queries_per_task=1)
    stages = stages_of(corpora, queries_per_task=1)
    if workers == 1:
        stages = [OneWorker(s.corpora, s.recipe) if isinstance(s, InterleaveMine) else s for s in stages]
    assert Run(str(tmp_path / "ray"), stages).execute(RayExecutor()).exit_code == 0
    for stage in STAGES:
        assert data_of(str(tmp_path / "local"), stage) == data_of(str(tmp_path / "ray"), stage), stage


def test_a_task_without_a_query_of_the_sources_makes_an_empty_shard(tmp_path: Path) -> None:
    """Shards of a corpus mostly hold one source each."""
    finish(tmp_path / "a", [Crowded(rows=60, shards=1)])
    finish(tmp_path / "b", [Drawn(rows=60, width=12, shards=2, source="drawn")])
    corpora = (tmp_path / "b", tmp_path / "a")
    report = mine(tmp_path / "root", *corpora, sources=["coco"], max_starved=1, queries_per_task=1)
    assert report.exit_code == 0, report
    summaries = Whole.open(str(tmp_path / "root"), "interleave_mine").manifest.shards.values()
    assert [summary.rows_in for summary in summaries][:2] == [0, 0]


# ── the probe ──


def probed(root: Path) -> tuple[list[dict[str, Any]], npt.NDArray[np.int64]]:
    """Rows of BAND_SIZES, and the histogram summed over the shards."""
    whole = Whole.open(str(root), "interleave_probe")
    sizes, cosines = whole.tables("band_sizes"), [whole.read(shard).table("cosines") for shard in whole.shards]
    assert sizes.schema.equals(BAND_SIZES)
    assert all(table.schema.equals(COSINES) for table in cosines)
    return sizes.to_pylist(), np.sum([table["pairs"].to_numpy() for table in cosines], axis=0)


@pytest.mark.parametrize("sources", [[], ["flickr"]])
def test_the_probe_counts_what_is_there(sources: list[str], roots: Path, tmp_path: Path) -> None:
    told: dict[str, Json] = {"lo": 0.3, "hi": 0.6, "metric": "cosine", "sources": sources}
    mine(tmp_path, roots / "near", roots / "far", probe_queries=300, **told)
    rows, histogram = probed(tmp_path)
    known = Known([NEAR, FAR])
    taking_part = known.of(sources)
    assert len(rows) == min(300, len(taking_part))
    cosines = known.images @ known.images.T
    found = {row["row_id"]: len(row["supports"]) for row in known.supports(InterleaveRecipe(**told))}
    counted = np.zeros(400, np.int64)
    for row in rows:
        others = [float(cosines[row["row_id"], other]) for other in taking_part if other != row["row_id"]]
        for metric in BANDS:
            assert row[metric] == sum(0.3 <= distance(metric, cosine) <= 0.6 for cosine in others)
        assert row["found"] == found[row["row_id"]]
        counted += np.histogram(np.clip(others, -1, 1), bins=400, range=(-1, 1))[0]
    assert histogram.tolist() == counted.tolist()
    assert histogram.sum() == len(rows) * (len(taking_part) - 1)


def test_the_probe_is_drawn_by_a_seed_of_its_own(roots: Path, tmp_path: Path) -> None:
    """Another order of the samples looks at the same queries, and mines nothing anew."""
    for name, seed in {"a": 1, "b": 2}.items():
        mine(tmp_path / name, roots / "near", seed=seed, probe_queries=50)
    for stage in ("interleave_probe", "interleave_mine"):
        assert data_of(str(tmp_path / "a"), stage) == data_of(str(tmp_path / "b"), stage)
    rows = {row["row_id"] for row in probed(tmp_path / "a")[0]}
    assert len(rows) == 50
    assert rows != set(range(50))


@dataclass
class Told(logging.Handler):
    """What a person reads in the log, and the shards that were begun between, in their order."""

    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    __hash__ = logging.Handler.__hash__

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())

    def executor(self) -> LocalExecutor:
        said = self.said

        class Watching(LocalExecutor):
            def submit(self, call: Call) -> None:
                said.append(f"begun {call.name}")
                super().submit(call)

        return Watching()


@pytest.fixture
def told() -> Any:
    handler, logger = Told(), logging.getLogger("pipeline")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_the_histogram_is_told_once_before_mining_begins(roots: Path, tmp_path: Path, told: Told) -> None:
    for _ in range(2):
        Run(str(tmp_path), stages_of([roots / "near"])).execute(told.executor())
    (where,) = [number for number, said in enumerate(told.said) if "distances of images as l2 reads them" in said]
    assert f"200 queries, each with {NEAR.rows - 1} pairs" in told.said[where]
    assert where < told.said.index("begun interleave_mine:000000")
    shown = re.findall(r"^ *([\d.]+) ([▒░]) █+ ([\d,.]+) a query$", told.said[where], re.MULTILINE)
    assert [low for low, mark, _ in shown if mark == "▒"] == ["0.80", "0.90"]
    assert sum(float(count.replace(",", "")) for *_, count in shown) == pytest.approx(NEAR.rows - 1, abs=1)


def test_what_a_stage_tells_is_told_once_when_it_is_whole(tmp_path: Path, told: Told) -> None:
    for _ in range(2):
        Run(str(tmp_path), [Numbers(3), Telling(), Total()]).execute(told.executor())
    whole = Whole.open(str(tmp_path), "squares")
    assert told.said.count(f"{whole.rows} squares, and they are whole") == 1
    said = told.said.index(f"{whole.rows} squares, and they are whole")
    assert "begun squares:000002" in told.said[:said]
    assert "begun total:000000" in told.said[said:]


class Telling(Squares):
    def news(self, whole: Whole) -> str:
        return f"{whole.rows} squares, and they are whole"


# ── the gate ──


def test_a_band_that_is_nearly_empty_stops_the_run_before_anything_is_mined(
    roots: Path, tmp_path: Path, told: Told
) -> None:
    report = mine(tmp_path, roots / "near", last=STAGES[-1], **NEARLY_EMPTY)
    assert report.exit_code == 1
    assert report.unfinished == ("interleave_gate", "interleave_mine", "interleaved", "interleave_report")
    assert not (tmp_path / "interleave_mine").exists()
    assert "Traceback" not in "\n".join(told.said)
    assert sum("distances of images as l2 reads them" in said for said in told.said) == 1
    assert "of the queries starve, with fewer than 4 candidates, more than interleave.max_starved 0.8" in str(report)
    assert "raise interleave.max_starved" in str(report)


def test_raising_max_starved_goes_on_in_the_same_root(roots: Path, tmp_path: Path) -> None:
    mine(tmp_path, roots / "near", **NEARLY_EMPTY)
    before = {stage: StageFolder(str(tmp_path), stage).manifest() for stage in STAGES[:2]}
    assert mine(tmp_path, roots / "near", **NEARLY_EMPTY, max_starved=1).exit_code == 0
    assert {stage: StageFolder(str(tmp_path), stage).manifest() for stage in STAGES[:2]} == before
    assert len(supports_in(tmp_path)) == NEAR.rows


@pytest.mark.parametrize("setting", [{"hi": 1.1}, {"lo": 0.7}, {"metric": "cosine"}, {"supports": 5}], ids=str)
def test_another_band_in_the_same_root_is_refused_by_name(
    setting: dict[str, Json], roots: Path, tmp_path: Path
) -> None:
    mine(tmp_path, roots / "near")
    (name, value), made = next(iter(setting.items())), {**BAND, "supports": 4}
    with pytest.raises(FingerprintMismatch, match=f"{name} is {made[name]!r} there and {value!r} here"):
        mine(tmp_path, roots / "near", **setting)


def test_another_band_on_a_base_takes_over_the_keys_alone(roots: Path, tmp_path: Path) -> None:
    mine(tmp_path / "old", roots / "near")
    assert mine(tmp_path / "new", roots / "near", base=tmp_path / "old", hi=1.1).exit_code == 0
    taken = [stage for stage in STAGES if StageFolder(str(tmp_path / "new"), stage).taken()]
    assert taken == ["interleave_keys"]
    assert supports_in(tmp_path / "new") == Known([NEAR]).supports(InterleaveRecipe(**{**BAND, "hi": 1.1}))


def test_another_band_of_the_same_pairs_is_told_by_its_own_bounds(roots: Path, tmp_path: Path) -> None:
    mine(tmp_path / "old", roots / "near")
    assert mine(tmp_path / "new", roots / "near", base=tmp_path / "old", hi=1.000001).exit_code == 0
    old, new = (Whole.open(str(tmp_path / root), "interleave_probe").identity for root in ("old", "new"))
    assert old == new
    gate = Whole.open(str(tmp_path / "new"), "interleave_gate")
    assert Seen.read(gate).band == ("l2", 0.8, 1.000001)
    assert {row["hi"] for row in gate.tables("band").to_pylist()} == {1.000001}


@dataclass(frozen=True)
class Lumped(Drawn):
    """Half of the images lie all together, the other half far from everything."""

    width: int = 64

    @property
    def images(self) -> npt.NDArray[np.float16]:
        rng = np.random.default_rng(self.seed)
        together = rng.standard_normal(self.width) + 0.5 * rng.standard_normal((self.rows, self.width))
        apart = rng.standard_normal((self.rows, self.width))
        return unit(np.where(np.arange(self.rows)[:, None] % 2, apart, together))


@pytest.mark.parametrize(
    ("corpus", "band"),
    [
        (NEAR, NEARLY_EMPTY),
        (NEAR, {"metric": "cosine", "lo": 0.0, "hi": 0.01}),
        (NEAR, {"metric": "l2_squared", "lo": 0.3, "hi": 0.32}),
    ],
    ids=str,
)
def test_the_advised_bounds_leave_enough_candidates(corpus: Drawn, band: dict[str, Json], tmp_path: Path) -> None:
    finish(tmp_path / "corpus", [corpus])
    report = mine(tmp_path / "old", tmp_path / "corpus", **band)
    assert report.exit_code == 1
    advised = re.search(r"interleave\.hi at ([\d.]+)", str(report))
    assert advised is not None
    followed = {**band, "hi": float(advised[1])}
    assert mine(tmp_path / "new", tmp_path / "corpus", **followed).exit_code == 0
    starved = [len(row["supports"]) < 4 for row in supports_in(tmp_path / "new")]
    assert np.mean(starved) < 0.05


def test_what_wider_bounds_hardly_mend_is_told_so(tmp_path: Path) -> None:
    finish(tmp_path / "corpus", [Lumped(rows=600)])
    report = mine(tmp_path / "old", tmp_path / "corpus", lo=0.4, hi=0.7, max_starved=0.3)
    assert report.exit_code == 1
    assert re.search(r"On average a query has 1\d\d pairs in the band, but half have at most \d\d:", str(report))
    assert "interleave.hi at" not in str(report)


def test_a_band_beyond_all_pairs_is_told_the_nearer_bound(tmp_path: Path) -> None:
    finish(tmp_path / "corpus", [Drawn(rows=40)])
    report = mine(tmp_path / "far", tmp_path / "corpus", lo=1.9, hi=2.0)
    assert "interleave.hi" not in str(report)
    advised = re.search(r"interleave\.lo at ([\d.]+)", str(report))
    assert advised is not None
    assert mine(tmp_path / "near", tmp_path / "corpus", lo=float(advised[1]), hi=2.0).exit_code == 0


# ── what is refused ──


def refused(*corpora: Path | str, **recipe: Json) -> str:
    with pytest.raises((InputError, RecipeError)) as caught:
        stages_of(list(map(Path, corpora)), **recipe)
    return str(caught.value)


def test_fewer_pairs_than_supports_are_refused(roots: Path) -> None:
    assert "interleave.supports is 200, and the corpora hold 200 pairs" in refused(roots / "near", supports=200)
    assert stages_of([roots / "near"], supports=199)
    assert stages_of([roots / "near", roots / "far"], supports=200)


def test_corpora_that_do_not_compare_are_refused_by_name(tmp_path: Path) -> None:
    wide = finish(tmp_path / "wide", [Drawn(rows=20, width=32)])
    small = finish(tmp_path / "small", [Model("ViT-B-32"), Drawn(rows=20)])
    large = finish(tmp_path / "large", [Model("ViT-L-14"), Drawn(rows=20, seed=6)])
    assert f"the vectors of {wide} are 32 wide, and those of {small} 64" in refused(small, wide)
    assert f"{small}: ViT-B-32, weights drawn; {large}: ViT-L-14, weights drawn" in refused(small, large)
    assert f"{small} and {small} hold the same corpus" in refused(small, small)


def test_a_corpus_that_is_not_finished_is_refused(roots: Path, tmp_path: Path) -> None:
    assert "nowhere/corpus is not whole" in refused(roots / "near", tmp_path / "nowhere")


def test_sources_that_no_pair_has_are_refused_with_those_that_exist(roots: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"interleave\.sources names cc3m, .* hold pairs of coco, flickr"):
        mine(tmp_path, roots / "near", sources=["coco", "cc3m"])
    assert not (tmp_path / "interleave_probe").exists()


def test_sources_of_fewer_pairs_than_supports_are_refused(roots: Path, tmp_path: Path) -> None:
    few = sum(row["source"] == "coco" for row in Known([NEAR]).told)
    with pytest.raises(RecipeError, match=rf"interleave\.supports is {few}, and .* {few} pairs"):
        mine(tmp_path, roots / "near", sources=["coco"], supports=few)


@dataclass(frozen=True)
class Spoilt(Crowded):
    """One vector is no number, or endless."""

    value: str = "nan"
    spoilt: str = "images"

    @property
    def images(self) -> npt.NDArray[np.float16]:
        return self._spoilt("images", super().images)

    @property
    def captions(self) -> npt.NDArray[np.float16]:
        rng = np.random.default_rng(self.seed)
        return self._spoilt("captions", unit(rng.standard_normal((self.rows, self.width))))

    def _spoilt(self, side: str, vectors: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
        if side == self.spoilt:
            vectors[77, 3] = float(self.value)
        return vectors


@pytest.mark.parametrize("value", ["nan", "-inf"])
@pytest.mark.parametrize("side", ["images", "captions"])
@pytest.mark.parametrize("sampled", [20_000, 5], ids=["among those that axes are computed from", "not among them"])
def test_a_pair_without_finite_vectors_is_named(
    sampled: int, side: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "SAMPLED", sampled)
    corpus = finish(tmp_path / "corpus", [Spoilt(rows=100, value=value, spoilt=side)])
    report = mine(tmp_path / "root", Path(corpus))
    assert report.exit_code == 1
    assert "InputError: row 77 of the corpora, toy-0000000077, holds a vector with values that are not" in str(report)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_pair_that_takes_no_part_may_be_anything(seed: int, tmp_path: Path) -> None:
    corpus = Spoilt(rows=100)
    other = {"coco": "flickr", "flickr": "coco"}[corpus.row(77)["source"]]
    finish(tmp_path / "corpus", [corpus])
    assert mine(tmp_path / "root", tmp_path / "corpus", sources=[other], seed=seed, max_starved=1).exit_code == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lo": 0.6, "hi": 0.6}, "lo is 0.6 and hi is 0.6: lo has to be smaller"),
        ({"lo": 2.1, "hi": 3}, "at most 2 as metric l2 reads it"),
        ({"metric": "l2_squared", "lo": 4.5, "hi": 5}, "at most 4 as metric l2_squared"),
        ({"metric": "cosine", "lo": 2.5, "hi": 5}, "at most 2 as metric cosine"),
        ({"hi": float("inf")}, "finite"),
        ({"lo": float("nan")}, "greater than or equal to 0|finite"),
        ({"metric": "hamming"}, "'l2', 'l2_squared' or 'cosine'"),
        ({"engine": "sweep", "device": "cuda"}, "set device to cpu, or engine to auto"),
    ],
)
def test_a_band_that_nothing_can_lie_in_is_refused(given: Mapping[str, Json], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InterleaveRecipe(**given)
