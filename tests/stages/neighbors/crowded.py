"""Corpora in which every leakage rule has much to do, and neighbours told the slow obvious way."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.executor import LocalExecutor
from pipeline.recipe import Json
from pipeline.run import Run, RunReport
from stages.neighbors import NeighborReader, NeighborsRecipe, neighbor_stages
from tests.stages.index.corpora import Drawn, unit

WORDS = ("A red ball.", "a RED, ball", "🎉", "🎉", "🎈", "!!", "Ⅳ Straße", "iv STRASSE", "", "a red-ball", "a redball")
FLAT = 2**63 + 7  # a perceptual hash of many pictures


@dataclass(frozen=True)
class Crowded(Drawn):
    """About every third picture is another one. Some rows share an image_id, stored bytes or a perceptual hash, with
    equal, near and far vectors; most captions are shared. own: begins every second pair id; common: the others,
    which are those of any other such corpus."""

    width: int = 12
    shards: int = 4
    own: str = "toy"
    common: str = "shared"

    @property
    def images(self) -> npt.NDArray[np.float16]:
        rng = np.random.default_rng(self.seed)
        pictures = rng.standard_normal((self.rows // 3, self.width))
        shown = pictures[rng.integers(len(pictures), size=self.rows)]
        return unit(shown + rng.choice([0, 0, 0.03, 0.12], (self.rows, 1)) * rng.standard_normal(shown.shape))

    def row(self, number: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, number])
        told = {
            "source": ("coco", "flickr")[rng.integers(2)],
            "image_id": (None, None, "1", "2", "3")[rng.integers(5)],
            "stored_sha256": f"{rng.choice([number, 1, 2, 3, 4]):064x}",
            "phash": int(rng.choice([number, FLAT, FLAT, 5])),
            "caption": str(rng.choice([*WORDS, f"picture {number}", f"picture {number % 20}"])),
        }
        named = self.own if number % 2 else self.common
        return super().row(number) | told | {"pair_id": f"{named}-{number:010d}"}


@dataclass(frozen=True)
class OneCaption(Drawn):
    """Every pair says the same."""

    def row(self, number: int) -> dict[str, Any]:
        return super().row(number) | {"caption": "The same, of ALL!" if number % 2 else "the same of all"}


@dataclass(frozen=True)
class Searched:
    """A database as the test knows it."""

    corpus: Drawn
    alive: npt.NDArray[np.bool_] | None = None

    def rows(self) -> list[tuple[dict[str, Any], npt.NDArray[np.float64]]]:
        images = self.corpus.images.astype(np.float64)
        return [(self.corpus.row(number), images[number]) for number in range(self.corpus.rows)]


def same_caption(one: str, other: str) -> bool:
    return normal(one) == normal(other) if normal(one) or normal(other) else one == other


def normal(caption: str) -> str:
    folded = unicodedata.normalize("NFKC", caption).casefold()
    return re.sub(" +", " ", "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)).strip()


def rule_broken(query: Mapping[str, Any], found: Mapping[str, Any], cosine: float) -> str | None:
    if query["pair_id"] == found["pair_id"]:
        return "pair"
    if query["image_id"] is not None and (query["source"], query["image_id"]) == (found["source"], found["image_id"]):
        return "image_id"
    if query["stored_sha256"] == found["stored_sha256"]:
        return "sha256"
    if query["phash"] == found["phash"] and cosine >= 0.98:
        return "phash"
    return "caption" if same_caption(query["caption"], found["caption"]) else None


def by_hand(asking: Drawn, databases: Sequence[Searched], k: int, depth: int) -> list[dict[str, Any]]:
    """Rows of the schema NEIGHBORS, by looking at every pair."""
    rows = [
        (number, place, row, image)
        for number, database in enumerate(databases)
        for place, (row, image) in enumerate(database.rows())
        if database.alive is None or database.alive[place]
    ]
    return [_neighbors(query, image, rows, k, depth) for query, image in Searched(asking).rows()]


def _neighbors(query: dict[str, Any], image: Any, rows: Sequence[Any], k: int, depth: int) -> dict[str, Any]:
    measured = [(float(theirs @ image), number, place, row) for number, place, row, theirs in rows]
    ranked = sorted(measured, key=lambda found: (-found[0], *found[1:3]))
    removed = dict.fromkeys(("pair", "image_id", "sha256", "phash", "caption"), 0)
    kept: list[dict[str, Any]] = []
    for similarity, number, place, row in ranked[:depth]:
        rule = rule_broken(query, row, similarity)
        if len(kept) == k:
            break
        if rule:
            removed[rule] += 1
            continue
        told = {"pair_id": row["pair_id"], "similarity": float(np.float32(similarity)), "caption": row["caption"]}
        kept.append({"database": number, "row_id": place, **told})
    return {"pair_id": query["pair_id"], "neighbors": kept, "removed": removed, "shortfall": k - len(kept)}


def precompute(root: Path, corpus: Path, **recipe: Json) -> RunReport:
    stages = neighbor_stages(NeighborsRecipe(**recipe), str(corpus))
    return Run(str(root), stages).execute(LocalExecutor())


def found_in(root: Path) -> list[dict[str, Any]]:
    """All rows, in the order of the corpus."""
    reader = NeighborReader(str(root))
    return [row for shard in reader.shards for row in reader.table(shard).to_pylist()]
