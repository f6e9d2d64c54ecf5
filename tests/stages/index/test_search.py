"""jobs/search.py finds a corpus' own pictures again, and says in one line what is missing."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from jobs.search import main
from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Stage
from stages.embed import Embed
from stages.filter import FilterRecipe, Thresholds, filter_stages
from stages.index import IndexRecipe, Retriever, index_stages
from tests.stages.embed.pictures import TINY_RECIPE, Untrained, drawn_pairs
from tests.stages.filter.making import Downloaded, Made, Picture

PAIRS = drawn_pairs(30)


def made(number: int) -> Made:
    jpeg, caption = PAIRS[number]
    width, height = Image.open(io.BytesIO(jpeg)).size
    size = (2 * width, 2 * height)  # as fetched: twice what is stored
    return Made(f"cc3m-{number:010d}", caption, size=size, picture=Picture(jpeg, phash=number))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("search")
    (root / "recipe.yaml").write_text(yaml.safe_dump({"embed": TINY_RECIPE.model_dump(mode="json")}))
    loose = FilterRecipe(defaults=Thresholds(min_clip_score=None, min_short_side_px=None, max_aspect=None))
    shards = [[made(number) for number in range(0, 15)], [made(number) for number in range(15, 30)]]
    embedded: list[Stage[Any]] = [Untrained(), Downloaded(shards), Embed(TINY_RECIPE)]
    indexed = [*filter_stages(loose), *index_stages(IndexRecipe())]
    report = Run(str(root), embedded + indexed).execute(LocalExecutor())
    assert report.exit_code == 0, report
    return root


def test_a_picture_of_the_corpus_is_found_first_and_saved_as_it_lies_in_the_tar(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jpeg, caption = PAIRS[17]
    (tmp_path / "asked.jpg").write_bytes(jpeg)
    arguments = ["--image", str(tmp_path / "asked.jpg"), "--k", "3", "--save", str(tmp_path / "found")]
    assert main([str(root), *arguments]) == 0
    first, _, place, *_ = capsys.readouterr().out.splitlines()
    rank, cosine, *words = first.split()
    assert (rank, words) == ("1", caption.split())
    assert float(cosine) > 0.999
    saved = sorted((tmp_path / "found").iterdir())
    assert [path.name[:4] for path in saved] == ["001-", "002-", "003-"]
    assert saved[0].name == "001-cc3m-0000000017.jpg"
    assert saved[0].read_bytes() == jpeg
    tar, num_bytes, offset = place.split(": ")[0].strip(), *place.split(": ")[1].split(" bytes at ")
    assert Path(tar).read_bytes()[int(offset) :][: int(num_bytes)] == jpeg


def test_a_text_finds_as_many_pairs_as_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root), "--text", "a red ball"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5 * 3


def test_several_texts_are_answered_each_under_its_own_words(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root), "--text", "a red ball", "--text", "two stars", "--k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (len(lines), lines[0], lines[7]) == (2 * (1 + 2 * 3), "a red ball", "two stars")


def records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def stored(root: Path) -> npt.NDArray[np.float16]:
    corpus = Whole.open(str(root), "corpus")
    return np.concatenate([corpus.read(shard).array("img_emb") for shard in corpus.shards])


def test_an_object_a_result_holds_the_pair_and_where_its_picture_lies(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jpeg, caption = PAIRS[17]
    (tmp_path / "asked.jpg").write_bytes(jpeg)
    assert main([str(root), "--image", str(tmp_path / "asked.jpg"), "--k", "1", "--format", "jsonl"]) == 0
    (found,) = records(capsys)
    assert [*found] == ["query", "rank", "similarity", "row_id", "pair_id", "caption", "source", "url", "picture"]
    assert found["query"] == str(tmp_path / "asked.jpg")
    assert (found["rank"], found["pair_id"], found["source"]) == (1, "cc3m-0000000017", "cc3m")
    assert found["caption"] == caption
    assert found["similarity"] > 0.999
    place = found["picture"]
    assert Path(place["tar"]).read_bytes()[place["offset"] :][: place["bytes"]] == jpeg


@pytest.mark.parametrize("kind", ["npy", "list<float>", "list<double>", "fixed_size_list<halffloat>"])
def test_vectors_of_any_number_are_answered_as_the_retriever_does(
    kind: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = np.tile(stored(root), (20, 1))  # several blocks
    path = tmp_path / f"queries.{'npy' if kind == 'npy' else 'parquet'}"
    types = {"list<float>": pa.list_(pa.float32()), "list<double>": pa.list_(pa.float64())}
    names: list[Any] = [*range(len(vectors))]
    if kind == "npy":
        np.save(path, vectors)
    else:
        column = pa.array([*vectors.astype(np.float32)], types.get(kind, pa.list_(pa.float32())))
        if kind.startswith("fixed"):
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        names = [f"query {number}" for number in names]
        pq.write_table(pa.table({"id": names, "embedding": column, "other": names}), path, row_group_size=250)
    assert main([str(root), "--vectors", str(path), "--k", "3", "--format", "jsonl"]) == 0
    found = records(capsys)
    ids, similarity = Retriever(str(root)).search(vectors, 3)
    assert [one["row_id"] for one in found] == ids.ravel().tolist()
    assert [one["similarity"] for one in found] == similarity.ravel().tolist()
    assert [one["query"] for one in found] == np.repeat(names, 3).tolist()


def test_pictures_of_several_queries_go_to_a_folder_each(root: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "queries.npy", stored(root)[[4, 17]])
    arguments = ["--vectors", str(tmp_path / "queries.npy"), "--k", "1", "--save", str(tmp_path / "found")]
    assert main([str(root), *arguments]) == 0
    saved = {path.relative_to(tmp_path / "found"): path.read_bytes() for path in tmp_path.glob("found/*/*")}
    names = {4: "000000/001-cc3m-0000000004.jpg", 17: "000001/001-cc3m-0000000017.jpg"}
    assert saved == {Path(name): PAIRS[number][0] for number, name in names.items()}


@pytest.mark.usefixtures("ray_cluster")
def test_owners_on_ray_print_what_this_process_prints(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [str(root), "--text", "a red ball", "--nprobe", "1", "--depth", "7", "--format", "jsonl"]
    assert main(asked) == 0
    expected = records(capsys)
    assert main([*asked, "--owners", "1"]) == 0
    assert records(capsys) == expected != []
    assert main([*asked, "--owners", "2"]) == 2
    assert "2 owners were asked for, and the index has 1 serving shards" in capsys.readouterr().err


def test_more_lists_probed_and_more_candidates_ranked_find_more(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "queries.npy", stored(root)[:1])
    found = []
    for nprobe in ("1", "1000"):
        arguments = ["--vectors", str(tmp_path / "queries.npy"), "--k", "30", "--nprobe", nprobe, "--format", "jsonl"]
        assert main([str(root), *arguments]) == 0
        found.append(len(records(capsys)))
    assert found[0] <= found[1] == 30


@pytest.mark.parametrize("written_over", [{"embed": {"model": "ViT-B-32"}}, {"update": {"index": "runs/old"}}])
def test_a_recipe_of_another_model_than_made_the_vectors_is_refused(
    written_over: dict[str, Any], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = (root / "recipe.yaml").read_bytes()
    (root / "recipe.yaml").write_text(yaml.safe_dump(written_over))
    try:
        assert main([str(root), "--text", "anything"]) == 2
    finally:
        (root / "recipe.yaml").write_bytes(recipe)
    said = capsys.readouterr().err
    assert "recipe.yaml says that model of embed is 'ViT-B-32', but the vectors there were made by 'encoder'" in said


WIDTH = 24
GOOD = [1.0] + [0.0] * (WIDTH - 1)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"vectors": [GOOD], "n": [1]}, "has the columns vectors, n; vectors should be in one called vector or embed"),
        ({"vector": [GOOD], "embedding": [GOOD]}, "has the columns vector, embedding; vectors should be in one called"),
        ({"vector": ["text"]}, "column vector holds string, and should hold lists of floats"),
        ({"vector": [[1]]}, "column vector holds list<element: int64>, and should hold lists of floats"),
        ({"vector": [GOOD], "id": [0.5]}, "column id holds double, and should hold strings or integers"),
        ({"vector": [GOOD, GOOD[:-1]]}, "vector 1 is 23 wide, and the index is 24 wide"),
        ({"vector": [GOOD] * 300 + [None]}, "vector 300 is 0 wide, and the index is 24 wide"),
        ({"vector": [GOOD, [float("nan"), *GOOD[1:]]]}, "vector 1 holds values that are not finite"),
        ({"vector": [[None, *GOOD[1:]]]}, "vector 0 holds values that are not finite"),
        ({"vector": [GOOD, [0.0] * WIDTH]}, "vector 1 has norm 0; vectors should be finite and of norm 1"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_vectors_that_cannot_be_searched_for_are_named(
    columns: dict[str, list[Any]], said: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "queries.parquet")
    assert main([str(root), "--vectors", str(tmp_path / "queries.parquet")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.parquet", b"not a table", "a.parquet cannot be read"),
        ("a.npy", b"not an array", "a.npy is no .npy file of numbers"),
        ("a.npy", b"", "a.npy is no .npy file of numbers"),
        ("a.npy", b"PK\x03\x04", "a.npy is no .npy file of numbers"),
        ("a.npy", np.ones((1, 24), np.longdouble), "a.npy holds float128 of shape (1, 24)"),
        ("a.npy", np.ones((2, 5)), "a.npy holds float64 of shape (2, 5), and should hold floats of shape (n, 24)"),
        ("a.npy", np.ones(24), "a.npy holds float64 of shape (24,)"),
        ("a.npy", np.ones((1, 24), np.int64), "a.npy holds int64 of shape (1, 24)"),
        ("a.csv", b"1,2", "a.csv: vectors are read from .npy and .parquet files"),
        ("a.npy", None, "a.npy cannot be read: [Errno 2] No such file"),
    ],
)
def test_files_that_hold_no_vectors_are_named(
    name: str, data: Any, said: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(data, bytes):
        (tmp_path / name).write_bytes(data)
    elif data is not None:
        np.save(tmp_path / name, data)
    assert main([str(root), "--vectors", str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err


def test_more_than_the_index_holds_is_refused_with_its_size(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root), "--text", "a red ball", "--k", "31"]) == 2
    assert "k is 31, and the index holds 30 pairs" in capsys.readouterr().err


def test_what_is_missing_is_said_in_one_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--text", "a red ball"]) == 2
    assert "index_gate is not whole" in capsys.readouterr().err
    assert main([str(root), "--image", str(tmp_path / "none.jpg")]) == 2
    assert "none.jpg is not a picture that can be read" in capsys.readouterr().err
