"""From lists of pairs (TSV, csv, JSON, parquet, tars) to numbered, checked url shards of one schema."""

from stages.ingest.count import Count, read_counts
from stages.ingest.recipe import IngestRecipe
from stages.ingest.rows import Rows
from stages.ingest.sample import sample_urls
from stages.ingest.sources import check_sources

__all__ = ["Count", "IngestRecipe", "Rows", "check_sources", "read_counts", "sample_urls"]
