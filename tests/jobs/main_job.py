"""The demo's recipe made small, for tests of the whole job."""

from pathlib import Path

RECIPE = str(Path(__file__).parents[2] / "jobs" / "recipes" / "demo.yaml")
CRAWL = ("encoder", "ingest_count", "ingest_keys", "ingest_duplicates", "ingest_rows", "download")
AFTER = ("embed", "filter_judge", "corpus", "index_train", "index_add", "index", "index_report", "index_gate")


def small(root: Path, lists: Path, port: int) -> list[str]:
    """Overrides that make the demo a matter of seconds, in one process."""
    sources = [f"{{name: {name}, preset: {name}, files: ['{lists}/{name}.tsv']}}" for name in ("cc3m", "cc12m")]
    return [
        f"root={root}",
        "engine=local",
        f"demo={{folder: {lists}, seed: 5, urls: 400, port: {port}}}",
        f"ingest={{shard_size: 100, sources: [{', '.join(sources)}]}}",
        f"download.allow=['127.0.0.1:{port}', '127.0.0.1:1']",
        "download.deadline_s=2",
        "download.check_urls=4",
        "encoder={steps: 3, batch: 50}",
        "filter={shard_rows: 90, defaults: {min_clip_score: null}}",
        "index.min_recall=null",
    ]
