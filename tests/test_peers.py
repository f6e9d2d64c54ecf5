"""A corpus is read by the tools of others as the pipeline wrote it: nothing is copied, renamed or converted.

They run in a virtual environment of their own, made once below ~/.cache/revilm-tests, with numpy 1 and the FAISS that
autofaiss needs. Of clip-retrieval all is real but what only its embedding half imports: torch, all_clip,
sentence_transformers, wandb, webdataset. Its package imports that half at once, so the modules that index and serve are
imported past the package's own __init__, and a query is given as a vector.
"""

import hashlib
import json
import os
import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.commits import Whole
from stages.filter import FilterRecipe
from tests.stages.filter.making import WIDTH, Made, Picture, filtered, unit

PACKAGES = (
    *("autofaiss==2.18.0", "embedding-reader==1.8.1", "faiss-cpu<=1.13.2", "numpy<2", "pandas<3", "pyarrow<16"),
    *("flask<4", "flask_restful<1", "flask_cors<5", "h5py<4", "prometheus-client<1", "pillow"),
)
CLIP_RETRIEVAL = "clip-retrieval==2.45.0"
PAST_ITS_INIT = """
import sys, types
from importlib.util import find_spec

package = types.ModuleType("clip_retrieval")
package.__path__ = list(find_spec("clip_retrieval").submodule_search_locations)
sys.modules["clip_retrieval"] = package
"""

ROWS, SHARD_ROWS = 900, 70  # 13 shards: names are put in order beyond the tenth, too
COLUMNS = ["row_id", "pair_id", "url", "caption", "phash"]

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Corpus:
    """data: the folder as the pipeline left it. The rest is read from it by the commit records, in row order."""

    data: str
    images: npt.NDArray[np.float16]
    texts: npt.NDArray[np.float16]
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    random, rng = Random(5), np.random.default_rng(5)
    made = [
        Made(
            pair_id=f"toy-{row:010d}",
            caption=random.choice(["a star", "zwei Hunde im Schnee", "雪中的两只狗", 'said "no",\ttwice']) + f" {row}",
            url=random.choice([None, f"https://pictures.example.org/{row}.jpg?a=1&b=é"]),
            picture=Picture(f"picture {row}".encode(), random.getrandbits(64), unit(rng.standard_normal(WIDTH))),
        )
        for row in range(ROWS)
    ]
    root = filtered(tmp_path_factory.mktemp("peers") / "root", FilterRecipe(shard_rows=SHARD_ROWS), [made])
    whole = Whole.open(root, "corpus")
    shards = [whole.read(shard) for shard in whole.shards]
    assert len(shards) > 10
    return Corpus(
        f"{root}/corpus/data",
        np.concatenate([shard.array("img_emb") for shard in shards]),
        np.concatenate([shard.array("text_emb") for shard in shards]),
        [row for shard in shards for row in shard.table("metadata").select(COLUMNS).to_pylist()],
    )


@pytest.fixture(scope="module")
def peers() -> Path:
    """The Python of the environment; what cannot be made is skipped."""
    named = hashlib.sha256(repr((PACKAGES, CLIP_RETRIEVAL)).encode()).hexdigest()[:12]
    folder = Path.home() / ".cache" / "revilm-tests" / f"peers-{named}"
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        for packages in (PACKAGES, ("--no-deps", CLIP_RETRIEVAL)):
            command = [str(python), "-m", "pip", "install", "--quiet", "--retries", "1", *packages]
            answer = subprocess.run(command, capture_output=True, text=True)
            if answer.returncode:
                pytest.skip(f"pip cannot install {packages}: {answer.stderr.strip().splitlines()[-1]}")
        (folder / "whole").touch()
    return python


def told(python: Path, code: str, *arguments: object) -> Any:
    """What the code, run over there, leaves in `answer`."""
    program = f"import json, sys\n{code}\nprint(json.dumps(answer))"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-c", program, *map(str, arguments)]
    run = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_embedding_reader_reads_both_embeddings_in_row_order(peers: Path, corpus: Corpus) -> None:
    code = """
from embedding_reader import EmbeddingReader

answer = []
for folder in ("img_emb", "text_emb"):
    reader = EmbeddingReader(f"{sys.argv[1]}/{folder}", file_format="npy")
    answer.append([row for batch, _ in reader(batch_size=37) for row in batch.tolist()])
"""
    images, texts = told(peers, code, corpus.data)
    assert images == corpus.images.tolist()
    assert texts == corpus.texts.tolist()


def test_embedding_reader_reads_metadata_beside_the_vectors(peers: Path, corpus: Corpus) -> None:
    """Numbers of 64 bits are exact where a column of text is read with them; of numbers alone it makes float64."""
    code = """
from embedding_reader import EmbeddingReader

reader = EmbeddingReader(
    f"{sys.argv[1]}/img_emb", "parquet_npy", meta_columns=sys.argv[2:], metadata_folder=f"{sys.argv[1]}/metadata"
)
answer = []
for batch, metadata in reader(batch_size=101):
    rows = json.loads(metadata.to_json(orient="records"))
    answer += [[row, vector] for row, vector in zip(rows, batch.tolist())]
"""
    read = told(peers, code, corpus.data, *COLUMNS)
    expected = [row | {"i": number} for number, row in enumerate(corpus.rows)]
    assert [row for row, _ in read] == expected
    assert [vector for _, vector in read] == corpus.images.tolist()
    assert [row["row_id"] for row, _ in read] == list(range(ROWS))


def test_an_index_that_autofaiss_builds_of_the_folder_finds_rows_by_our_row_ids(
    peers: Path, corpus: Corpus, tmp_path: Path
) -> None:
    code = """
import faiss
import numpy as np
from autofaiss import build_index

index, _ = build_index(
    sys.argv[1] + "/img_emb", index_path=sys.argv[2], index_infos_path=sys.argv[2] + ".json", nb_cores=1,
    max_index_memory_usage="1G", current_memory_available="2G",
)
_, ids = faiss.read_index(sys.argv[2]).search(np.load(sys.argv[3]), 1)
answer = ids[:, 0].tolist()
"""
    np.save(tmp_path / "queries.npy", corpus.images.astype(np.float32))
    found = told(peers, code, corpus.data, tmp_path / "image.index", tmp_path / "queries.npy")
    assert found == list(range(ROWS))


@pytest.mark.parametrize("store", ["parquet", "hdf5"])
def test_clip_retrieval_indexes_the_folder_and_answers_with_our_pairs(
    peers: Path, corpus: Corpus, tmp_path: Path, store: str
) -> None:
    code = f"""{PAST_ITS_INIT}
import numpy as np
from clip_retrieval.clip_back import ClipResource, KnnService, load_index, load_metadata_provider
from clip_retrieval.clip_index import clip_index

folder, columns = sys.argv[2], sys.argv[5:]
clip_index(sys.argv[1], folder, max_index_memory_usage="1G", current_memory_available="2G", nb_cores=1)
image, text = (load_index(f"{{folder}}/{{name}}.index", True) for name in ("image", "text"))
metadata, _ = load_metadata_provider(folder, sys.argv[3] == "hdf5", False, image, columns, False)
resource = ClipResource(
    device="cpu", model=None, preprocess=None, tokenizer=None, model_txt_mclip=None, safety_model=None,
    violence_detector=None, metadata_provider=metadata, image_index=image, text_index=text,
    ivf_old_to_new_mapping=None, columns_to_return=columns, metadata_is_ordered_by_ivf=False, aesthetic_embeddings=None,
)
service = KnnService(clip_resources={{"corpus": resource}})
answer = []
for query in np.load(sys.argv[4]):
    for modality, vector in (("image", query), ("text", -query)):
        distances, ids = service.knn_search(vector[None], modality, 3, resource, False, False, False)
        answer.append(service.map_to_metadata(ids, distances, 3, metadata, columns)[0])
"""
    (tmp_path / "index").mkdir()
    asked = [0, SHARD_ROWS, 10 * SHARD_ROWS, ROWS - 1]  # of the first shard, the second, the eleventh and the last
    np.save(tmp_path / "queries.npy", corpus.images[asked].astype(np.float32))
    found = told(peers, code, corpus.data, tmp_path / "index", store, tmp_path / "queries.npy", *COLUMNS)
    for answer, row_id in zip(found, np.repeat(asked, 2).tolist(), strict=True):
        pair = corpus.rows[row_id]
        url = pair["url"] or ("" if store == "hdf5" else None)
        assert {name: answer[name] for name in ("id", *COLUMNS)} == pair | {"id": row_id, "url": url}
        assert answer["similarity"] == pytest.approx(1, abs=2e-3)
