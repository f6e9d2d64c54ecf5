"""jobs/caption.py on a real index of drawn scenes: every picture has a caption or a reason, and no neighbour is the
picture itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo.server import Answer, serve
from jobs.caption import main
from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.schemas import CAPTIONS
from pipeline.stage import shard_id
from stages.filter import CorpusReader
from stages.index import IndexSettings, UpdateRecipe, update_stages
from tests.evaluation.indexed import NEIGHBORS, SCENES, config, indexed, saved
from tests.model.small_models import small_model


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    main([*arguments, "--format", "jsonl", "--max-new-tokens", "5"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_picture_has_a_caption_and_neighbours_that_do_not_show_it(
    checkpoint: str, database: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, checkpoint, str(pictures), "--index", database)
    assert [each["picture"] for each in found] == [str(path) for path in sorted(pictures.glob("*.png"))]
    vectors = np.concatenate([shard.img_emb for shard in CorpusReader(database).shards()]).astype(np.float64)
    cosines = vectors @ vectors.T
    for number, each in enumerate(found):
        assert each["caption"] is not None
        rows = [int(n["pair_id"].rpartition("-")[2]) for n in each["neighbors"]]
        assert number not in rows
        found_cosines = [n["similarity"] for n in each["neighbors"]]
        assert found_cosines == sorted(found_cosines, reverse=True)
        assert found_cosines == pytest.approx(cosines[number, rows].tolist(), abs=1e-3)  # its own vector was rounded
        assert len(rows) == NEIGHBORS
        assert each["removed"] == 1
        assert set(each["seconds"]) == {"embed", "retrieve", "generate"}


def test_another_index_is_another_database_and_none_is_none(
    checkpoint: str, database: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = indexed(tmp_path / "other", pictures, "other")
    picture = str(pictures / "03.png")
    (swapped,) = told(capsys, checkpoint, picture, "--index", other)
    assert [n["pair_id"].partition("-")[0] for n in swapped["neighbors"]] == ["other"] * NEIGHBORS
    (alone,) = told(capsys, checkpoint, picture, "--no-retrieval")
    assert (alone["neighbors"], alone["removed"], list(alone["seconds"])) == ([], 0, ["embed", "generate"])


def test_a_picture_that_cannot_be_read_is_told_and_costs_the_others_nothing(
    checkpoint: str, database: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    with serve({"/a.png": Answer((pictures / "05.png").read_bytes())}) as server:
        asked = [
            str(tmp_path / "page.jpg"),
            f"{server.base_url}/a.png",
            f"{server.base_url}/gone",
            str(pictures / "0[56].png"),
        ]
        arguments = [checkpoint, *asked, "--index", database, "--allow", f"127.0.0.1:{server.port}"]
        code = main([*arguments, "--format", "jsonl"])
    page, url, gone, five, six = map(json.loads, capsys.readouterr().out.splitlines())
    assert code == 1
    assert page["error"].startswith("not_an_image: ")
    assert gone["error"].startswith("http_client_error: ")
    assert (url["caption"], url["neighbors"]) == (five["caption"], five["neighbors"])
    assert six["caption"] is not None


def test_the_page_shows_pictures_and_neighbours_and_needs_nothing_else(
    checkpoint: str, database: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([checkpoint, str(pictures / "0[0-2].png"), "--index", database, "--format", "html"]) == 0
    page = capsys.readouterr().out
    assert (page.count("<section>"), page.count('<img src="data:image/jpeg')) == (3, 3 * (1 + NEIGHBORS))
    assert "default-src 'none'" in page


def test_a_parquet_names_pictures_or_holds_them(
    checkpoint: str, database: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(pictures / f"{number:02d}.png") for number in (3, 9, 7)]
    pq.write_table(pa.table({"path": paths, "id": [1, 2, 3]}), tmp_path / "paths.parquet")
    held = pa.table({"jpeg": [Path(path).read_bytes() for path in paths] + [None]})
    pq.write_table(held, tmp_path / "held.parquet", row_group_size=2)
    with serve({f"/{number}": Answer(Path(path).read_bytes()) for number, path in enumerate(paths)}) as server:
        pq.write_table(
            pa.table({"url": [f"{server.base_url}/{number}" for number in range(3)]}), tmp_path / "u.parquet"
        )
        allowed = ["--index", database, "--allow", f"127.0.0.1:{server.port}"]
        ways = [
            told(capsys, checkpoint, str(tmp_path / f"{name}.parquet"), *allowed) for name in ("paths", "held", "u")
        ]
    due = told(capsys, checkpoint, *paths, "--index", database)
    for found in ways:
        assert [(each["caption"], each["neighbors"]) for each in found[:3]] == [
            (each["caption"], each["neighbors"]) for each in due
        ]
    assert [each["picture"] for each in ways[1]] == [f"{tmp_path}/held.parquet#{row}" for row in range(4)]
    assert ways[1][3]["error"] == "empty_body: no bytes in that row"


def test_captions_are_written_as_a_parquet_that_says_what_the_lines_say(
    checkpoint: str, database: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.png").touch()
    asked = [checkpoint, str(pictures / "0[0-3].png"), str(tmp_path / "empty.png"), "--index", database]
    assert main([*asked, "--max-new-tokens", "5", "--out", str(tmp_path / "captions.parquet")]) == 1
    table = pq.read_table(tmp_path / "captions.parquet")
    assert table.schema == CAPTIONS
    lines = told(capsys, *asked)
    for row, line in zip(table.drop(["seconds"]).to_pylist(), lines, strict=True):
        del line["seconds"]
        assert row == line | {"neighbors": [n | {"similarity": np.float32(n["similarity"])} for n in line["neighbors"]]}
    assert table["seconds"].to_pylist()[4] is None


def test_fewer_neighbours_may_be_asked_for_than_the_model_reads_and_not_more(
    checkpoint: str, database: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [checkpoint, str(pictures / "03.png"), "--index", database]
    (both,), (one,), (no,) = (told(capsys, *asked, "--neighbors", k) for k in ("2", "1", "0"))
    assert (one["neighbors"], no["neighbors"]) == (both["neighbors"][:1], [])
    assert main([*asked, "--neighbors", "3"]) == 2
    assert "neighbors is 3; allowed are 0…2" in capsys.readouterr().err


@pytest.fixture(scope="module")
def index_of_two(database: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, set[int]]:
    """And the pairs that are left: no index can be smaller, for its recall is measured."""
    root = str(tmp_path_factory.mktemp("two"))
    trained_on = Whole.open(database, "index_train").read(shard_id(0)).array("sample").tolist()
    kept = {min({*range(SCENES)} - {*trained_on}), trained_on[0]}
    deleted = tuple(f"own-{number:010d}" for number in range(SCENES) if number not in kept)
    stages = update_stages(UpdateRecipe(index=database, delete=deleted), IndexSettings(min_recall=None))
    assert Run(root, stages).execute(LocalExecutor()).exit_code == 0
    return root, kept


def test_an_index_of_fewer_pairs_than_neighbours_is_refused_unless_fewer_are_asked_for(
    index_of_two: tuple[str, set[int]], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (index, kept), wants = index_of_two, saved(tmp_path / "wants", small_model(config(neighbors=3)))
    assert main([wants, str(pictures), "--index", index]) == 2
    assert "holds 2 pairs that can be found, fewer than the 3 neighbours" in capsys.readouterr().err
    found = told(capsys, wants, str(pictures), "--index", index, "--neighbors", "2")
    assert [len(each["neighbors"]) for each in found] == [1 if number in kept else 2 for number in range(SCENES)]


def test_a_prompt_without_room_for_a_caption_costs_the_others_nothing(
    index_of_two: tuple[str, set[int]], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In mode prefix neighbours' captions stand in front of the picture, and two pictures have but one."""
    (index, kept), prefix = index_of_two, saved(tmp_path / "prefix", small_model(config("prefix")))
    asked = [prefix, str(pictures), "--index", index, "--format", "jsonl", "--beams", "1"]
    assert main([*asked, "--max-new-tokens", "130"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {number for number, each in enumerate(found) if each["caption"] is not None} == kept
    (why,) = {each["error"] for each in found if each["caption"] is None}
    assert why.startswith("prompt_too_long: it leaves 127 positions of 160 for 130 new tokens")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["CHECKPOINT", "/nowhere.jpg", "--no-retrieval"],
            "/nowhere.jpg is no file, folder, glob that matches, or url",
        ),
        (["CHECKPOINT", "FOLDER", "--no-retrieval"], "holds no picture"),
        (["CHECKPOINT", "PARQUET", "--no-retrieval"], "has columns image; allowed is one of path, url, jpeg"),
        (["CHECKPOINT", "https://me:secret@example.org/x.jpg", "--no-retrieval"], "a url holds credentials"),
        (["/nowhere", "PICTURE", "--no-retrieval"], "/nowhere is not finished"),
        (["CHECKPOINT", "PICTURE", "--index", "/nowhere"], "/nowhere"),
        (["/nowhere", "PICTURE", "--no-retrieval", "--beams", "0"], "beams is 0: "),
        (
            ["/nowhere", "PICTURE", "--no-retrieval", "--out", "captions.csv"],
            "--out is captions.csv; allowed is a name",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str],
    said: str,
    checkpoint: str,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pq.write_table(pa.table({"image": ["a"]}), tmp_path / "p.parquet")
    (tmp_path / "none").mkdir()
    named = {"CHECKPOINT": checkpoint, "PICTURE": str(pictures / "00.png")}
    named |= {"FOLDER": str(tmp_path / "none"), "PARQUET": str(tmp_path / "p.parquet")}
    assert main([named.get(each, each) for each in arguments]) == 2
    assert said in capsys.readouterr().err
