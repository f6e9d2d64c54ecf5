"""Pairs that show a picture of an evaluation set leave, however it was shrunk or compressed, and no other pair does."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from demo.scenes import random_scene, render
from pipeline.commits import Whole
from pipeline.errors import FingerprintMismatch, InputError, RecipeError
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Stage
from stages.download import DownloadRecipe, stored_picture
from stages.embed import Embed, EmbedRecipe, width_of
from stages.filter import FilterRecipe, filter_stages
from stages.filter.evaluation_match import BLOCK, Pictures, meetings
from stages.filter.recipe import EvaluationRule
from stages.report import tables
from tests.stages.embed.pictures import TINY_RECIPE, Untrained, jpeg_of
from tests.stages.filter.making import Downloaded, Made, Picture, unit
from tests.stages.filter.test_duplicates import KEEP_ALL
from tests.toys import data_of

IN_THE_SET = 4
RULE = EvaluationRule(max_bits=8, min_cosine=0.5)


# ── the rule ──


def cosine(one: Any, other: Any) -> float:
    return sum(float(x) * float(y) for x, y in zip(one, other, strict=True))


def brute_force(pairs: Pictures, of_set: Pictures) -> dict[int, tuple[int, int, float]]:
    """Row → its nearest picture, bits and cosine."""
    found: dict[int, tuple[int, int, float]] = {}
    for row, sha256 in enumerate(pairs.sha256):
        for picture, theirs in enumerate(of_set.sha256):
            bits = (int(pairs.phash[row]) ^ int(of_set.phash[picture])).bit_count()
            agree = cosine(pairs.vectors[row], of_set.vectors[picture])
            meets = sha256 == theirs or (bits <= RULE.max_bits and agree >= RULE.min_cosine)
            if meets and (row not in found or agree > found[row][2]):
                found[row] = (picture, bits, agree)
    return found


def crowd(random: np.random.Generator, checksums: Sequence[str | None]) -> Pictures:
    """Of few hashes, that differ in some bits, and few directions."""
    num = len(checksums)
    flips = random.integers(0, 2**63, (3, num), dtype=np.uint64)
    phash = random.choice(np.array([0, 2**63, 0xF0F0F0F0F0], np.uint64), num) ^ (flips[0] & flips[1] & flips[2])
    centers = np.eye(8)[random.integers(0, 8, num)]
    vectors = np.array([unit(v) for v in centers + 0.3 * random.normal(size=(num, 8))])
    return Pictures(checksums, phash, vectors)


@pytest.mark.parametrize("seed", range(3))
def test_what_meets_is_what_comparing_everything_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = crowd(random, [f"{row}" if row % 9 == 0 else "unlike" for row in range(90)])
    of_set = crowd(random, [f"{number}" if number % 2 else None for number in range(60)])
    found = {met.row: (met.picture, met.bits, met.cosine) for met in meetings(pairs, of_set, RULE)}
    assert found == brute_force(pairs, of_set)
    assert 5 < len(found) < 85


def test_a_picture_is_found_in_whichever_block_it_lies() -> None:
    random = np.random.default_rng(7)
    phash = random.integers(0, 2**63, 2 * BLOCK + 5, dtype=np.uint64)
    of_set = Pictures([None] * len(phash), phash, np.array([unit(v) for v in random.normal(size=(len(phash), 8))]))
    rows = random.permutation(len(phash))[:50]
    pairs = Pictures(["-"] * 50, phash[rows] ^ np.uint64(0b1011), of_set.vectors[rows])
    assert [met.picture for met in meetings(pairs, of_set, RULE)] == rows.tolist()


# ── the stages ──


@dataclass(frozen=True)
class Drawn:
    """Pictures of which the first IN_THE_SET are in the folder, and a crawl that has all of them, and of those in the
    folder two changed copies each."""

    folder: Path
    pairs: Sequence[Made]

    @property
    def in_the_set(self) -> set[str]:
        return {pair.pair_id for pair in self.pairs if int(pair.caption.split()[-1]) < IN_THE_SET}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    random = Random(4)
    pictures = [render(random_scene(random), width_px=360, height_px=280) for _ in range(16)]
    folder = tmp_path_factory.mktemp("set")
    for number, picture in enumerate(pictures[:IN_THE_SET]):
        place = folder / f"part {number % 2}" / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        picture.save(place)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden").write_text("not looked at")
    seen = [(number, jpeg_of(picture)) for number, picture in enumerate(pictures)]
    for number, picture in enumerate(pictures[:IN_THE_SET]):
        seen += [(number, jpeg_of(picture.resize((180, 140)))), (number, compressed(picture))]
    random.shuffle(seen)
    return Drawn(folder, [pair_of(row, *found) for row, found in enumerate(seen)])


def compressed(picture: Image.Image) -> bytes:
    written = io.BytesIO()
    picture.convert("L").save(written, "JPEG", quality=40)
    return written.getvalue()


def pair_of(row: int, number: int, body: bytes) -> Made:
    stored = stored_picture(body, DownloadRecipe(), lambda reason, detail: None)
    assert stored
    picture = Picture(stored.jpeg, stored.phash)
    source = "cc3m" if row % 2 else "coyo"
    return Made(f"{source}-{row:010d}", f"scene {number}", size=(2 * stored.width, 2 * stored.height), picture=picture)


def recipe_of(sets: dict[str, Path], **changes: Any) -> FilterRecipe:
    return FilterRecipe(defaults=KEEP_ALL, evaluation_sets=sets, evaluation_rule=RULE, **changes)


def decontaminated(root: Path, pairs: Sequence[Made], recipe: FilterRecipe) -> str:
    crawl: list[Stage[Any]] = [Untrained(), Downloaded([pairs[:9], pairs[9:]]), Embed(TINY_RECIPE)]
    made = [] if recipe.inputs else crawl
    run = Run(str(root), [*made, *filter_stages(recipe, DownloadRecipe(), TINY_RECIPE)])
    report = run.execute(LocalExecutor())
    assert report.exit_code == 0, report
    return str(root)


@pytest.fixture(scope="module")
def clean(drawn: Drawn, tmp_path_factory: pytest.TempPathFactory) -> str:
    return decontaminated(tmp_path_factory.mktemp("clean"), drawn.pairs, recipe_of({"drawn": drawn.folder}))


def rejects_of(root: str, stage: str) -> dict[str, tuple[str, str]]:
    rows = [row for path in Path(root, stage, "rejects").glob("*") for row in pq.read_table(path).to_pylist()]
    return {row["pair_id"]: (row["reason"], row["detail"]) for row in rows}


def test_every_form_of_the_sets_pictures_leaves_and_nothing_else(drawn: Drawn, clean: str) -> None:
    gone = rejects_of(clean, "filter_judge")
    assert gone.keys() == drawn.in_the_set
    assert len(gone) == 3 * IN_THE_SET
    for pair in drawn.pairs:
        if pair.pair_id in gone:
            number = int(pair.caption.split()[-1])
            reason, detail = gone[pair.pair_id]
            assert reason == "evaluation_picture"
            assert detail.startswith(f"drawn: part {number % 2}/{number}.png (")
    kept = Whole.open(clean, "corpus").tables("metadata")["pair_id"].to_pylist()
    assert set(kept) == {pair.pair_id for pair in drawn.pairs} - gone.keys()


def test_a_file_that_is_no_picture_is_a_reject(clean: str) -> None:
    assert {name: reason for name, (reason, _) in rejects_of(clean, "evaluation_sets").items()} == {
        "drawn/notes.txt": "not_an_image"
    }


def test_the_report_tells_it_set_by_set(drawn: Drawn, clean: str) -> None:
    (row,) = tables(clean)["evaluation sets"].to_dicts()
    of_source = {
        f"of {source}": sum(name.startswith(source) for name in drawn.in_the_set) for source in ("cc3m", "coyo")
    }
    counted = {"pictures": IN_THE_SET, "pictures_met": IN_THE_SET, "pairs": 3 * IN_THE_SET}
    assert row == {"set": "drawn", **counted, **of_source}
    assert set(tables(clean)["losses"].columns) == {"stage", "reason", "rows", "share", *of_source}


def test_a_parquet_of_hashes_and_embeddings_finds_the_same(drawn: Drawn, clean: str, tmp_path: Path) -> None:
    whole = Whole.open(clean, "evaluation_sets")
    vectors = whole.read("000000").array("img_emb").astype(np.float32)
    rows = whole.tables("pictures", ["phash"]).append_column("embedding", pa.array([*3 * vectors]))
    pq.write_table(rows, tmp_path / "set.parquet")
    recipe = recipe_of({"hashes": tmp_path / "set.parquet", "pictures": drawn.folder})
    both = decontaminated(tmp_path / "both", drawn.pairs, recipe)
    gone = rejects_of(both, "filter_judge")
    assert gone.keys() == drawn.in_the_set
    assert all(detail.startswith("hashes: row ") for _, detail in gone.values())
    told = tables(both)["evaluation sets"]
    assert told["set"].to_list() == ["hashes", "pictures"]
    assert told["pairs"].to_list() == [3 * IN_THE_SET] * 2


def test_the_pairs_of_other_runs_are_compared_by_their_model(drawn: Drawn, clean: str, tmp_path: Path) -> None:
    Path(clean, "recipe.yaml").write_text("embed: {model: encoder, batch_size: 8, cpus: 1}")
    recipe = recipe_of({"drawn": drawn.folder}, inputs=(clean,))
    again = decontaminated(tmp_path / "again", (), recipe)
    assert rejects_of(again, "filter_judge") == rejects_of(clean, "filter_judge")
    Path(clean, "recipe.yaml").write_text("embed: {model: encoder, batch_size: 9}")
    with pytest.raises(InputError, match="says that batch_size of embed is 9"):
        filter_stages(recipe)


def test_the_same_command_changes_nothing_and_only_the_contents_of_a_set_count(
    drawn: Drawn, clean: str, tmp_path: Path
) -> None:
    made = {stage: data_of(clean, stage) for stage in ("evaluation_sets", "filter_judge", "corpus")}
    moved = tmp_path / "moved"
    drawn.folder.rename(moved)
    try:
        decontaminated(Path(clean), drawn.pairs, recipe_of({"drawn": moved}))
        assert made == {stage: data_of(clean, stage) for stage in made}
        (moved / "notes.txt").write_text("other notes")
        with pytest.raises(FingerprintMismatch, match=r"sets\.drawn"):
            decontaminated(Path(clean), drawn.pairs, recipe_of({"drawn": moved}))
    finally:
        (moved / "notes.txt").write_text("no picture")
        moved.rename(drawn.folder)


def test_without_sets_a_run_is_what_it_was() -> None:
    judge = filter_stages(FilterRecipe())[0]
    assert judge.settings().keys() == {"defaults", "sources", "exclude"}
    assert [source.stage for source in judge.inputs] == ["download", "embed"]


# ── what is refused before anything starts ──


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"phash": [1], "embedding": [[0.1]]}, "should have columns phash"),
        ({"phash": pa.array([1], pa.uint64())}, "should have columns phash"),
        ({"phash": pa.array([], pa.uint64()), "embedding": pa.array([], pa.list_(pa.float32()))}, "has no row"),
        ({"phash": pa.array([1, 2], pa.uint64()), "embedding": [[0.1], [0.1, 0.2]]}, "one width"),
        ({"phash": pa.array([1], pa.uint64()), "embedding": [[float("nan")]]}, "one width"),
        ({"phash": pa.array([1], pa.uint64()), "embedding": [[1.0] * 16]}, "width 16, those of the corpus 512"),
    ],
)
def test_a_parquet_that_is_none_is_refused(columns: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises((InputError, RecipeError), match=f"evaluation_sets.one: .*{told}"):
        filter_stages(FilterRecipe(evaluation_sets={"one": parquet(tmp_path / "set.parquet", **columns)}))


def test_a_set_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("phash")
    for name, told in (("gone", "is neither a folder"), ("empty", "holds no file"), ("text", "is no parquet file")):
        with pytest.raises(InputError, match=told):
            filter_stages(FilterRecipe(evaluation_sets={"one": tmp_path / name}))


def test_a_folder_without_a_picture_stops_the_run(drawn: Drawn, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_text("no picture")
    with pytest.raises(AssertionError, match="no file of .* is a picture"):
        decontaminated(tmp_path / "root", drawn.pairs, recipe_of({"none": tmp_path / "set"}))


def test_the_width_of_open_clips_models_is_known_before_they_are_opened() -> None:
    assert width_of(EmbedRecipe()) == 512
    assert width_of(EmbedRecipe(model="ViT-L-14")) == 768
    assert width_of(TINY_RECIPE) is None
