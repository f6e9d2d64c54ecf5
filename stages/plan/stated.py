"""Rates where a root has none of its own: what was measured elsewhere, or is assumed, each with where it comes from.

Bytes count for each row that comes out of a stage (rejects and tables of all rows are spread over those), seconds for
each row that goes in: what a worker spends, who holds the CPUs and GPUs that its stage declares.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from pipeline.errors import RecipeError
from stages import embed
from stages.index import Choice, IndexBytes, IndexRecipe, choose, index_bytes
from stages.plan.figures import Figure, stated
from stages.plan.job import Job

ASSUMED = "an assumption"
REPLAY = "the replay of CC3M's validation list (docs/results.md)"
DEMO = "the demo, on two CPU cores"
LISTS = "lists of 1 and 10 million rows (docs/results.md)"
INDEX = "the index of 5 million (docs/results.md)"
FORMULA = "the index that would be built (stages/index/size.py)"

FETCHED: Mapping[str, tuple[float, str]] = {
    "cc3m": (0.93, "CC3M's record of 2019; today's share is lower, and not known here"),
    "": (0.70, f"{ASSUMED}: what share of old urls still answers is not known here"),
}
"""By preset: of the urls, those that give a picture."""
PASSED = (0.25, f"{ASSUMED}: the source's own columns were not read")
SCORED = (0.20, "of 747 M pairs of COYO 104 M are kept (Re-ViLM §4.1); reckoned from those 70 % whose urls answer")
UNSCORED = (0.99, f"{ASSUMED}; of {REPLAY}, 14,723 of 14,732")
VECTORS = "two float16 vectors, and the table's columns as in the replay"
RECORD_BYTES = (1200, "the demo's commit records")
CUDA_PER_S = (1500, "clip-retrieval's own figure: ViT-B-32 on an RTX 3080; not measured here, other models differ")
CPU_PER_S = (7.5, "a CPU core, ViT-B-32 (docs/results.md); other models differ")
OWN_PER_S = (240, DEMO)
MULTIPLIED_PER_S = 65e9  # products and sums of a core
LIST_NUMBER_BYTES = 4


@dataclass(frozen=True)
class Rates:
    survival: Figure  # rows out of a row in
    seconds: Figure  # a row in
    bytes: Figure  # a row out
    shard_seconds: Figure
    shard_bytes: Figure  # the commit record too
    files: Figure  # a shard: data, rejects and the record


@dataclass(frozen=True)
class Work:
    """What one stage takes. origin, sized: where its time and its bytes were seen."""

    origin: str
    seconds: float = 0
    bytes: float = 0
    shard_seconds: float = 0
    shard_bytes: float = 0
    files: int = 2
    sized: str = ""


def stated_rates(job: Job, stage: str, source: str, passed: Figure, rows: float) -> Rates:
    """passed: the share of the source's rows that the prefilter lets pass. rows: that enter the stage, of all sources.
    A stage that is not known takes nothing but its records."""
    work = WORK.get(stage, _unknown)(job, rows)
    record, told = RECORD_BYTES
    return Rates(
        survival=_survival(job, stage, source, passed),
        seconds=stated(work.seconds, work.origin),
        bytes=stated(work.bytes, work.sized or work.origin),
        shard_seconds=stated(work.shard_seconds, work.origin),
        shard_bytes=stated(work.shard_bytes + record, (work.sized or work.origin) if work.shard_bytes else told),
        files=stated(work.files, "what the stage writes: data, rejects, the record"),
    )


def stated_prefilter(job: Job, source: str) -> Figure:
    """The share of a list's rows that its own columns let pass."""
    given = job.plan.survival.get(source)
    if not has_prefilter(job, source):
        return Figure(1)
    return stated(given.prefilter, "plan.survival") if given and given.prefilter else stated(*PASSED)


def has_prefilter(job: Job, source: str) -> bool:
    return job.ingest is not None and any(s.name == source and s.prefilter.given() for s in job.ingest.lists)


def _survival(job: Job, stage: str, source: str, passed: Figure) -> Figure:
    """Whom the prefilter keeps out, the score is taken to keep out too: both ways lead to one corpus."""
    given = job.plan.survival.get(source)
    if given and (told := {"download": given.download, "filter_judge": given.filter_judge}.get(stage)):
        return stated(told, "plan.survival")
    if stage == "ingest_rows":
        return passed if passed.value < 1 else stated(1, f"as in {REPLAY}")
    if stage == "download":
        return stated(*FETCHED.get(_preset(job, source), FETCHED[""]))
    if stage == "filter_judge":
        return _judged(job, source, passed)
    return stated(1, f"as in {REPLAY}" if stage != "filter_duplicates" else ASSUMED)


def _judged(job: Job, source: str, passed: Figure) -> Figure:
    if job.filter.thresholds(source).min_clip_score is None:
        return stated(*UNSCORED)
    share, origin = SCORED
    if passed.value == 1:
        return stated(share, origin)
    return stated(min(share / passed.value, UNSCORED[0]), f"{origin}, where the prefilter keeps out none of them")


def _preset(job: Job, source: str) -> str:
    return next((s.preset for s in job.ingest.lists if s.name == source), "") if job.ingest else ""


def _unknown(job: Job, rows: float) -> Work:
    return Work(ASSUMED)


def _encoder(job: Job, rows: float) -> Work:
    return Work(DEMO, shard_seconds=115, shard_bytes=48_000_000, files=4)


def _count(job: Job, rows: float) -> Work:
    return Work("15,833 rows of CC3M", seconds=3e-6, shard_bytes=300)


def _keys(job: Job, rows: float) -> Work:
    return Work(LISTS, seconds=5e-6, bytes=24, files=3)


def _repeats(job: Job, rows: float) -> Work:
    return Work(LISTS, seconds=1e-6)


def _rows(job: Job, rows: float) -> Work:
    return Work(LISTS, seconds=1.6e-5, bytes=78, files=3, sized="15,833 rows of CC3M")


def _download(job: Job, rows: float) -> Work:
    """A shard waits for `connections` urls at a time, unless its CPU is the limit."""
    seconds = max(job.plan.fetch_s / job.download.connections, 0.005)
    return Work(
        "plan.fetch_s / download.connections, and at least 5 ms of CPU: an assumption",
        seconds=seconds,
        bytes=37_400 * (job.download.size_px / 256) ** 2,
        files=4,
        sized=f"{REPLAY}, for 256 px and quality 95; by area",
    )


def _embed(job: Job, rows: float) -> Work:
    per_s, origin = CUDA_PER_S if job.embed.device == "cuda" else CPU_PER_S if job.width is None else OWN_PER_S
    if job.embed.device != "cuda" and job.width is None:
        per_s *= job.embed.cpus
    if job.plan.embed_per_s:
        per_s, origin = job.plan.embed_per_s, "plan.embed_per_s"
    return Work(origin, seconds=1 / per_s, bytes=4 * width_of(job) + 35, files=4, sized=VECTORS)


def _judge(job: Job, rows: float) -> Work:
    return Work(REPLAY, seconds=1.5e-4, bytes=186, files=3)


def _duplicates(job: Job, rows: float) -> Work:
    return Work(ASSUMED, seconds=2e-5, bytes=1, files=3)


def _corpus(job: Job, rows: float) -> Work:
    copied = 37_000 if job.filter.images == "copy" else 0
    size = 4 * width_of(job) + 110 + copied
    return Work(REPLAY, seconds=6.7e-5, bytes=size, files=5 if copied else 4, sized=VECTORS)


def _train(job: Job, rows: float) -> Work:
    """Ten rounds, in which the sample is compared with every list. rows: of the corpus."""
    choice, size = index_of(job, int(rows))
    seconds = choice.nlist * width_of(job) * 20 / MULTIPLIED_PER_S / job.index.train_cpus
    return Work(INDEX, seconds=seconds, bytes=8, shard_bytes=_shared(size), files=3, sized=FORMULA)


def _add(job: Job, rows: float) -> Work:
    _, size = index_of(job, int(rows))
    return Work(INDEX, seconds=1.5e-4, bytes=size.codes / max(rows, 1) + LIST_NUMBER_BYTES, files=4, sized=FORMULA)


def _serve(job: Job, rows: float) -> Work:
    _, size = index_of(job, int(rows))
    return Work(INDEX, seconds=3e-6, bytes=size.codes / max(rows, 1), shard_bytes=_shared(size), sized=FORMULA)


def _report(job: Job, rows: float) -> Work:
    return Work(INDEX, seconds=2.9e-5, shard_bytes=65_000, files=4)


def _gate(job: Job, rows: float) -> Work:
    return Work(INDEX, shard_bytes=3_000)


WORK: Mapping[str, Callable[[Job, float], Work]] = {
    "encoder": _encoder,
    "ingest_count": _count,
    "ingest_keys": _keys,
    "ingest_duplicates": _repeats,
    "ingest_rows": _rows,
    "download": _download,
    "embed": _embed,
    "filter_judge": _judge,
    "filter_duplicates": _duplicates,
    "corpus": _corpus,
    "index_train": _train,
    "index_add": _add,
    "index": _serve,
    "index_report": _report,
    "index_gate": _gate,
}


def index_of(job: Job, rows: int) -> tuple[Choice, IndexBytes]:
    """What is built for a corpus of so many rows. autofaiss is not asked: its index is taken to be like that of `auto`.

    Raises RecipeError where that index cannot be made.
    """
    asked = {"factory": "auto"} if job.index.factory == "autofaiss" else {}
    return _index(job.index.model_copy(update=asked), max(rows, 1), width_of(job))


@cache
def _index(recipe: IndexRecipe, rows: int, width: int) -> tuple[Choice, IndexBytes]:
    choice = choose(recipe, rows, width)
    return choice, index_bytes(choice.factory, width, rows, recipe.serving_shards)


def _shared(size: IndexBytes) -> int:
    """Bytes of a template, which every serving shard repeats."""
    return size.centroids + size.graph + size.tables + size.lists


def width_of(job: Job) -> int:
    """Of the embeddings. Raises RecipeError where another run's own encoder made them."""
    width = embed.width_of(job.embed) if job.width is None else job.width
    if width is None:
        raise RecipeError(
            f"embed.model is {job.embed.model!r}, which this run does not train, so the width of its embeddings is not "
            "known here. For a plan name a model of open_clip of that width"
        )
    return width
