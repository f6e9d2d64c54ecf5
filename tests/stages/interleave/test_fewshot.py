"""Few-shot sets hold what the definitions say, told the slow obvious way: whose picture is whose, who is near, who may
accompany whom, and in what order."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from jobs import make_fewshot
from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.executor import LocalExecutor
from pipeline.run import Run, RunReport
from pipeline.schemas import FEWSHOT
from stages.interleave import FewshotRecipe, fewshot_stages
from stages.interleave.fewshot_supports import Asked, Mined, Pictures
from stages.interleave.supports import Supports
from tests.stages.index.corpora import Drawn, Model, finish, unit
from tests.toys import data_of

Row = dict[str, Any]
FLAT = 2**63 + 7  # a perceptual hash of many pictures
BAND: Row = {"metric": "cosine", "lo": 0.2, "hi": 0.6}
SELECTIONS: list[Row] = [{"selection": "random"}, {"selection": "rices"}, {"selection": "paper", **BAND}]
by_selection = pytest.mark.parametrize("recipe", SELECTIONS, ids=lambda recipe: str(recipe["selection"]))


@dataclass(frozen=True)
class Captioned(Drawn):
    """A split of a captioning set: five captions a picture, pairs numbered from 0 as in every split of one list.

    seed: of the captions and the noise. first: the number of the first picture, so that splits share none. copies:
    number of a picture → the stored bytes, image_id, perceptual hash and vector of another one, as they are named.
    """

    width: int = 16
    shards: int = 3
    source: str = "flickr"
    first: int = 0
    copies: tuple[tuple[int, str, int], ...] = ()

    def told(self, row: int, what: str) -> int:
        """The number of the picture whose bytes, say, the row has."""
        picture = self.first + row // 5
        return next((other for one, name, other in self.copies if (one, name) == (picture, what)), picture)

    @property
    def images(self) -> npt.NDArray[np.float16]:
        return unit(np.stack([picture(self.told(row, "vector"), self.width) for row in range(self.rows)]))

    @property
    def captions(self) -> npt.NDArray[np.float16]:
        noise = np.random.default_rng(self.seed).standard_normal((self.rows, self.width))
        return unit(self.images + 0.15 * np.round(noise))

    def row(self, number: int) -> Row:
        return super().row(number) | {
            "image_id": f"{self.told(number, 'image_id')}.jpg",
            "stored_sha256": f"{self.told(number, 'bytes'):064x}",
            "phash": FLAT if self.told(number, "phash") == FLAT else self.told(number, "phash") * 7919,
            "caption": f"caption {number % 5} of picture {self.first + number // 5}",
        }


def picture(number: int, width: int) -> npt.NDArray[np.float64]:
    return 1.5 + np.random.default_rng(number).standard_normal(width)


COPIES = (
    (3, "image_id", 1),  # within the train split: one picture under two names
    (7, "bytes", 1002),  # these are pictures of the test split too
    (8, "image_id", 1003),
    (9, "bytes", 8),  # by way of 8
    (10, "phash", FLAT),
    (10, "vector", 1004),
    (11, "phash", FLAT),  # equal by the hash alone: another picture
    (1004, "phash", FLAT),
    (1006, "bytes", 1005),
)
TRAIN = Captioned(rows=200, copies=COPIES)
TEST = Captioned(rows=60, seed=6, first=1000, copies=COPIES)
MORE = Captioned(rows=45, seed=9, first=500)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("roots")
    for name, corpus in {"train": TRAIN, "test": TEST, "more": MORE}.items():
        finish(folder / name, [corpus])
    return folder


def make(root: Path, roots: Path, train: Sequence[str] = ("train",), test: str = "test", **recipe: Any) -> RunReport:
    stages = fewshot_stages(FewshotRecipe(**recipe), [str(roots / name) for name in train], str(roots / test))
    return Run(str(root), stages).execute(LocalExecutor())


def made(root: Path, roots: Path, shots: Sequence[int] = (2, 4, 8), **recipe: Any) -> dict[int, list[Row]]:
    """Number of shots → the rows of its table."""
    report = make(root, roots, shots=shots, **recipe)
    assert report.exit_code == 0, "\n".join([str(report), *report.failed.values()])
    whole = Whole.open(str(root), "fewshot")
    return {n: whole.tables(f"shots_{n}").to_pylist() for n in shots}


def supports(row: Row) -> list[tuple[int, int]]:
    return [(support["corpus"], support["row_id"]) for support in row["supports"]]


# ── the slow obvious way ──


@dataclass
class Split:
    """All rows of the corpora in the order in which they count; the last corpus is the test split."""

    corpora: Sequence[Drawn]

    def __post_init__(self) -> None:
        self.places = [(n, row) for n, corpus in enumerate(self.corpora) for row in range(corpus.rows)]
        self.rows = [self.corpora[n].row(row) for n, row in self.places]
        self.images = np.concatenate([corpus.images for corpus in self.corpora]).astype(np.float64)
        self.captions = np.concatenate([corpus.captions for corpus in self.corpora]).astype(np.float64)
        self.train = [row for row, (n, _) in enumerate(self.places) if n < len(self.corpora) - 1]
        self.shown = list(range(len(self.rows)))
        for tell in (self.name, lambda row: row["stored_sha256"], lambda row: (row["pair_id"], row["caption"])):
            first: dict[Any, int] = {}
            for number, row in enumerate(self.rows):
                self.join(first.setdefault(tell(row), number), number)
        self.test = [row for row, (n, _) in enumerate(self.places) if n == len(self.corpora) - 1]
        self.queries = sorted({min(r for r in self.test if self.shown[r] == self.shown[q]) for q in self.test})

    @staticmethod
    def name(row: Row) -> Any:
        return (row["source"], row["image_id"])

    def join(self, one: int, other: int) -> None:
        old, new = sorted((self.shown[one], self.shown[other]), reverse=True)
        self.shown = [new if label == old else label for label in self.shown]

    def references(self, query: int) -> list[int]:
        return [row for row in self.test if self.shown[row] == self.shown[query]]

    def barred(self, query: int, row: int) -> bool:
        hashed = self.rows[query]["phash"] == self.rows[row]["phash"]
        return self.shown[query] == self.shown[row] or (hashed and self.images[query] @ self.images[row] >= 0.98)

    def standing(self, query: int) -> list[int]:
        """Train rows that stand for pictures which the query may be shown."""
        return [row for row in self.train if self.shown[row] == row and not self.barred(query, row)]

    def rices(self, query: int) -> list[int]:
        return sorted(self.standing(query), key=lambda row: (-float(self.images[query] @ self.images[row]), row))

    def near(self, query: int) -> list[int]:
        """In the band."""
        return [row for row in self.train if 0.2 <= 1 - self.images[query] @ self.images[row] <= 0.6]

    def paper(self, query: int) -> list[int]:
        """The best caption of every picture in the band, best first."""
        free = [row for row in self.near(query) if not self.barred(query, row)]
        ranked = sorted(free, key=lambda row: (-float(self.captions[query] @ self.captions[row]), row))
        best: dict[int, int] = {}
        for row in ranked:
            best.setdefault(self.shown[row], row)
        return list(best.values())


SPLIT = Split([TRAIN, TEST])


# ── who asks, and who accompanies ──


def test_every_test_picture_asks_once_with_all_its_captions_as_references(roots: Path, tmp_path: Path) -> None:
    rows = made(tmp_path, roots)[4]
    assert [row["query"]["row_id"] + TRAIN.rows for row in rows] == SPLIT.queries
    assert len(rows) == 11  # 12 pictures, of which 1005 and 1006 are one
    for row, query in zip(rows, SPLIT.queries, strict=True):
        shown = [SPLIT.rows[other] for other in SPLIT.references(query)]
        assert row["references"] == [{"pair_id": r["pair_id"], "caption": r["caption"]} for r in shown]
        assert (row["pair_id"], row["image_id"]) == (shown[0]["pair_id"], shown[0]["image_id"])
    assert sorted({len(row["references"]) for row in rows}) == [5, 10]


@by_selection
def test_supports_are_told_as_their_corpus_tells_them(recipe: Row, roots: Path, tmp_path: Path) -> None:
    told = ("row_id", "pair_id", "caption", "input", "shard", "offset", "bytes")
    corpora = [TRAIN, MORE, TEST]
    for row in made(tmp_path, roots, train=["train", "more"], **recipe)[8]:
        for pair in [row["query"], *row["supports"]]:
            origin = corpora[pair["corpus"]].row(pair["row_id"])
            assert {name: pair[name] for name in told} == {name: origin[name] for name in told}


@by_selection
def test_supports_are_of_the_train_split_and_of_different_pictures(recipe: Row, roots: Path, tmp_path: Path) -> None:
    split = Split([TRAIN, MORE, TEST])
    for row in made(tmp_path, roots, train=["train", "more"], **recipe)[8]:
        found = [split.places.index(place) for place in supports(row)]
        query = split.places.index((2, row["query"]["row_id"]))
        assert set(found) <= set(split.train)
        assert len({split.shown[number] for number in found}) == len(found)
        assert not any(split.barred(query, number) for number in found)


def test_a_picture_of_both_splits_is_barred_by_every_rule_and_counted(roots: Path, tmp_path: Path) -> None:
    made(tmp_path, roots, shots=[20])
    pairs = {(query, row) for query in SPLIT.queries for row in SPLIT.train if SPLIT.barred(query, row)}
    of_picture = {(1000 + (q - TRAIN.rows) // 5, row // 5) for q, row in pairs}
    assert of_picture == {(1002, 7), (1003, 8), (1003, 9), (1004, 10)}
    record = Whole.open(str(tmp_path), "fewshot").read("000000").record
    assert record.metrics["same_picture"] == len(pairs) == 20


def test_a_train_pair_of_the_querys_number_may_be_its_support(roots: Path, tmp_path: Path) -> None:
    rows = made(tmp_path, roots, shots=[36])[36]  # nearly all train pictures
    same_number = [row for row in rows if row["pair_id"] in {support["pair_id"] for support in row["supports"]}]
    assert len(same_number) > 5


# ── which ones, in what order ──


def test_rices_are_the_nearest_pictures_the_most_similar_last(roots: Path, tmp_path: Path) -> None:
    for shots, rows in made(tmp_path, roots).items():
        expected = [[(0, r) for r in SPLIT.rices(query)[:shots][::-1]] for query in SPLIT.queries]
        assert [supports(row) for row in rows] == expected


@pytest.mark.parametrize("engine", ["sweep", "products"])
def test_paper_supports_are_the_best_captions_in_the_band(engine: str, roots: Path, tmp_path: Path) -> None:
    sets = made(tmp_path, roots, selection="paper", engine=engine, device="cpu", **BAND)
    for shots, rows in sets.items():
        expected = [{(0, row) for row in SPLIT.paper(query)[:shots]} for query in SPLIT.queries]
        assert [set(supports(row)) for row in rows] == expected
    assert any(SPLIT.barred(query, row) for query in SPLIT.queries for row in SPLIT.near(query))


def test_paper_supports_stand_in_the_order_of_samples(roots: Path, tmp_path: Path) -> None:
    for row in made(tmp_path, roots, selection="paper", seed=3, **BAND)[8]:
        drawn = [f"3/{row['pair_id']}/{support['pair_id']}".encode() for support in row["supports"]]
        assert drawn == sorted(drawn, key=lambda text: blake2b(text, digest_size=8).digest())


def test_random_supports_differ_by_query_and_seed_and_every_picture_is_drawn(roots: Path, tmp_path: Path) -> None:
    one, other = (made(tmp_path / str(seed), roots, shots=[8], selection="random", seed=seed)[8] for seed in (0, 1))
    drawn = [tuple(supports(row)) for row in [*one, *other]]
    assert len(set(drawn)) == len(drawn)
    assert {row for found in drawn for _, row in found} == {row for row in SPLIT.train if SPLIT.shown[row] == row}


def test_what_is_drawn_for_a_query_depends_on_no_other(roots: Path, tmp_path: Path) -> None:
    finish(tmp_path / "few", [Captioned(rows=20, seed=6, first=1000, copies=COPIES)])
    few = [str(roots / "train")], str(tmp_path / "few")
    Run(str(tmp_path / "a"), fewshot_stages(FewshotRecipe(selection="random"), *few)).execute(LocalExecutor())
    alone = Whole.open(str(tmp_path / "a"), "fewshot").tables("shots_4").to_pylist()
    together = made(tmp_path / "b", roots, selection="random")[4]
    assert [supports(row) for row in alone] == [supports(row) for row in together[: len(alone)]]


@by_selection
def test_smaller_sets_are_parts_of_larger_ones_whatever_else_is_made(recipe: Row, roots: Path, tmp_path: Path) -> None:
    sets = made(tmp_path / "all", roots, **recipe)
    alone = made(tmp_path / "alone", roots, shots=[2], **recipe)[2]
    assert alone == sets[2]
    for two, four, eight in zip(*sets.values(), strict=True):
        assert set(supports(two)) < set(supports(four)) < set(supports(eight))
        assert (two["query"], two["references"]) == (eight["query"], eight["references"])
        if recipe["selection"] != "paper":
            beginning = slice(-2, None) if recipe["selection"] == "rices" else slice(2)
            assert supports(two) == supports(eight)[beginning]


# ── who reads it ──


@by_selection
def test_a_set_says_whether_it_leaks(recipe: Row, roots: Path, tmp_path: Path) -> None:
    sets, leaks = made(tmp_path, roots, **recipe), recipe["selection"] == "paper"
    whole = Whole.open(str(tmp_path), "fewshot")
    for shots, rows in sets.items():
        assert {(row["leaks"], row["selection"], row["shots"]) for row in rows} == {(leaks, recipe["selection"], shots)}
        assert whole.tables(f"shots_{shots}").schema == FEWSHOT
    train, test = str(roots / "train"), str(roots / "test")
    said = {"leaks": leaks, "selection": recipe["selection"], "shots": [2, 4, 8]}
    assert whole.plan().resolved == said | {"corpora": [train, test], "queries": test}
    assert all(("leaks" in path.name) == leaks for path in (tmp_path / "fewshot" / "data").iterdir())
    *_, stage = fewshot_stages(FewshotRecipe(**recipe), [train], test)
    assert ("LEAKS" in stage.news(whole)) == leaks


# ── starved ──

NARROW: Row = {"selection": "paper", "metric": "cosine", "lo": 0.2, "hi": 0.3}


def test_a_starved_picture_stays_with_what_there_is(roots: Path, tmp_path: Path) -> None:
    rows = made(tmp_path, roots, **NARROW)[8]
    assert len(rows) == len(SPLIT.queries)
    starved = [row for row in rows if len(row["supports"]) < 8]
    assert 0 < len(starved) < len(rows)
    assert Whole.open(str(tmp_path), "fewshot").read("000000").record.metrics["starved"] == len(starved)


def test_or_leaves_all_sets(roots: Path, tmp_path: Path) -> None:
    sets = made(tmp_path / "skip", roots, on_starved="skip", **NARROW)
    short = made(tmp_path / "short", roots, **NARROW)[8]
    whole = [row["pair_id"] for row in short if len(row["supports"]) == 8]
    assert [[row["pair_id"] for row in rows] for rows in sets.values()] == [whole] * 3
    record = Whole.open(str(tmp_path / "skip"), "fewshot").read("000000").record
    assert record.rejects == {"starved": len(short) - len(whole)}


@pytest.mark.parametrize(("on_starved", "left"), [("skip", 0), ("short", 11)])
def test_an_empty_band_leaves_empty_sets_or_empty_prompts(
    on_starved: str, left: int, roots: Path, tmp_path: Path
) -> None:
    nothing: Row = {"selection": "paper", "metric": "cosine", "lo": 1.99, "hi": 2.0}
    for rows in made(tmp_path, roots, on_starved=on_starved, **nothing).values():
        assert [row["supports"] for row in rows] == [[]] * left


def test_a_query_that_loses_its_own_picture_may_starve_at_random_too(roots: Path, tmp_path: Path) -> None:
    pictures = len(SPLIT.standing(SPLIT.queries[0]))
    rows = made(tmp_path, roots, shots=[pictures], selection="random")[pictures]
    expected = [min(pictures, len(SPLIT.standing(query))) for query in SPLIT.queries]
    assert [len(row["supports"]) for row in rows] == expected
    assert min(expected) < pictures


def test_a_picture_is_barred_whole_where_one_of_its_rows_may_be_the_querys() -> None:
    shown, phash = np.array([0, 1, 1, 3]), np.array([10, 11, 7, 7], np.uint64)  # three train rows, one test row

    class Alike:
        def gather(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
            return np.ones((len(ids), 1), np.float16)

    (barred,) = Pictures(shown, phash, 3).barred(np.array([3]), Alike())  # type: ignore[arg-type]
    assert barred.tolist() == [1, 2]


def test_what_is_mined_of_a_barred_picture_is_no_support() -> None:
    class Found:
        def mine(self, queries: object) -> Supports:
            nothing = np.zeros((1, 4))
            return Supports(np.array([[2, 0, 1, -1]]), nothing, nothing)

    class Asking:
        def queries(self, ids: npt.NDArray[np.int64]) -> None: ...

    pictures = Pictures(np.arange(4), np.zeros(4, np.uint64), 3)
    choice = Mined(Found(), Asking(), pictures, 2, 0)  # type: ignore[arg-type]
    (best,) = choice.best(Asked(np.array([3]), ["query"], [np.array([1, 2])]))
    assert best.tolist() == [0]


# ── the same, however it is made ──


@by_selection
def test_the_result_does_not_depend_on_how_queries_are_cut(recipe: Row, roots: Path, tmp_path: Path) -> None:
    one = made(tmp_path / "one", roots, **recipe)
    assert one == made(tmp_path / "cut", roots, queries_per_task=3, **recipe)
    assert len(Whole.open(str(tmp_path / "cut"), "fewshot").shards) == 4


@pytest.mark.slow  # those of samples have a short one
@pytest.mark.usefixtures("ray_cluster")
def test_on_ray_the_bytes_are_the_same(roots: Path, tmp_path: Path) -> None:
    recipe = str(Path(__file__).parents[3] / "jobs" / "recipes" / "fewshot.yaml")
    for engine in ("local", "ray"):
        given = [f"root={tmp_path / engine}", f"engine={engine}", f"supports=[{roots / 'train'}]"]
        given += [f"queries={roots / 'test'}", "fewshot.selection=paper", "fewshot.queries_per_task=4"]
        given += [f"fewshot.{name}={value}" for name, value in BAND.items()]
        assert make_fewshot.main([recipe, *given]) == 0
    assert data_of(str(tmp_path / "local"), "fewshot") == data_of(str(tmp_path / "ray"), "fewshot")


def test_another_selection_takes_the_keys_from_the_first_ones_root(roots: Path, tmp_path: Path) -> None:
    recipe = str(Path(__file__).parents[3] / "jobs" / "recipes" / "fewshot.yaml")
    given = ["engine=local", f"supports=[{roots / 'train'}]", f"queries={roots / 'test'}"]
    assert make_fewshot.main([recipe, *given, f"root={tmp_path / 'one'}"]) == 0
    more = [f"root={tmp_path / 'two'}", f"base.root={tmp_path / 'one'}", "fewshot.selection=random"]
    assert make_fewshot.main([recipe, *given, *more]) == 0
    assert (tmp_path / "two" / "fewshot_keys" / "taken.json").exists()


# ── bad input ──


def test_queries_and_supports_are_different_corpora(roots: Path) -> None:
    with pytest.raises(InputError, match="hold the same corpus, and supports come from the train split alone"):
        fewshot_stages(FewshotRecipe(), [str(roots / "more"), str(roots / "train")], str(roots / "train"))


def test_vectors_that_do_not_compare_are_refused(roots: Path, tmp_path: Path) -> None:
    finish(tmp_path / "wide", [Captioned(rows=20, width=24, first=2000)])
    with pytest.raises(InputError, match="24 wide"):
        fewshot_stages(FewshotRecipe(), [str(roots / "train")], str(tmp_path / "wide"))
    finish(tmp_path / "b32", [Captioned(rows=20, first=2000), Model()])
    finish(tmp_path / "b16", [Captioned(rows=25, first=3000), Model("ViT-B-16")])
    with pytest.raises(InputError, match="different embedding models"):
        fewshot_stages(FewshotRecipe(), [str(tmp_path / "b32")], str(tmp_path / "b16"))


def test_more_shots_than_train_pictures_are_refused_however_many_their_captions(roots: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"fewshot.shots asks for 10, and .* show 9 different pictures"):
        make(tmp_path, roots, train=["more"], shots=[2, 10])
    assert not (tmp_path / "fewshot").exists()


def test_a_query_that_is_not_finite_is_refused(roots: Path, tmp_path: Path) -> None:
    finish(tmp_path / "broken", [Broken(rows=20, first=2000)])
    report = make(tmp_path / "made", tmp_path, train=[str(roots / "train")], test="broken", selection="paper", **BAND)
    assert report.exit_code == 1
    assert "not finite" in str(report)


@dataclass(frozen=True)
class Broken(Captioned):
    @property
    def captions(self) -> npt.NDArray[np.float16]:
        return np.where(np.arange(self.rows)[:, None] == 5, np.float16(np.nan), super().captions)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"shots": []}, "at least 1 item"),
        ({"shots": [0, 2]}, "greater than 0"),
        ({"lo": 0.6, "hi": 0.4}, "lo has to be smaller"),
        ({"selection": "best"}, "'random', 'rices' or 'paper'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: Row, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FewshotRecipe(**setting)


# ── real captions ──


@dataclass(frozen=True)
class Flickr8k(Drawn):
    """Real captions, five a picture, of a split's first pictures, and drawn vectors."""

    path: str = ""
    split: str = ""
    width: int = 16
    source: str = "flickr8k"

    def row(self, number: int) -> Row:
        image_id, caption = pairs_of(self.path, self.split)[number]
        return super().row(number) | {"image_id": image_id, "stored_sha256": image_id, "caption": caption}


@lru_cache
def pairs_of(path: str, split: str) -> list[tuple[str, str]]:
    with gzip.open(path) as file:
        images = [image for image in json.load(file)["images"] if image["split"] == split]
    return [(image["filename"], sentence["raw"]) for image in images for sentence in image["sentences"]]


def test_flickr8ks_test_pictures_are_given_train_pictures(real_data: Path, tmp_path: Path) -> None:
    path = str(real_data / "flickr8k" / "dataset_flickr8k.json.gz")
    for split, rows in {"train": 1000, "test": 250}.items():
        finish(tmp_path / split, [Flickr8k(rows=rows, seed=rows, path=path, split=split)])
    found = made(tmp_path / "made", tmp_path)[8]
    captions: dict[str, list[str]] = {}
    for image_id, caption in pairs_of(path, "test")[:250]:
        captions.setdefault(image_id, []).append(caption)
    assert {row["image_id"]: [each["caption"] for each in row["references"]] for row in found} == captions
    told = {(support["row_id"], support["caption"]) for row in found for support in row["supports"]}
    assert told <= {(number, caption) for number, (_, caption) in enumerate(pairs_of(path, "train")) if not number % 5}
