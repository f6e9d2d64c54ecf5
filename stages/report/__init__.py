"""What a run did, read from its root and nothing else: tables for a terminal, and one page to look at.

Works on a running root too: of a stage that is not whole, what its commit records name is what counts. A stage that was
taken from a base is read where it lies.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

__all__ = ["PAGE", "funnel", "look_next", "progress", "rejects", "tables", "write_report"]

PAGE = "report.html"


def funnel(root: str) -> "pl.DataFrame":
    """A row a stage that pairs pass: what goes in, what comes out, and how much of the list is left. Raises InputError
    where the root holds no run."""
    from stages.report import counts
    from stages.report.root import RunRoot

    return counts.funnel(RunRoot(root))


def progress(root: str) -> "tuple[str, dict[str, pl.DataFrame]]":
    """What the run's driver last said of it: a sentence, and tables by title."""
    from pipeline.status import read_status
    from stages.report.at_work import progress, said

    status = read_status(root)
    return (said(status), progress(status)) if status else ("No driver has said anything of this run.", {})


def tables(root: str) -> "dict[str, pl.DataFrame]":
    """Everything that can be counted, by title. Raises InputError where the root holds no run."""
    from stages.report import counts, evaluation, quantiles, recall, samples
    from stages.report.root import RunRoot

    run = RunRoot(root)
    return {
        "funnel": counts.funnel(run),
        "losses": counts.losses(run),
        "sources": counts.sources(run),
        "evaluation sets": evaluation.evaluation_sets(run),
        "quantiles": quantiles.quantiles(run),
        "recall": recall.recall(run),
        "band": samples.band(run),
        "samples": samples.figures(run),
        "hubs": samples.hubs(run),
        "pictures": samples.pictures(run),
        "work": counts.work(run),
    }


def rejects(root: str) -> "pl.DataFrame":
    """Schema REJECTS, of all stages. Raises InputError where the root holds no run."""
    import polars as pl

    from stages.report.root import RunRoot

    return pl.concat([stage.rejects() for stage in RunRoot(root).stages.values()]).collect()


def write_report(root: str) -> str:
    """Make root/report.html anew, and return where it is. Raises InputError where the root holds no run."""
    from pipeline.storage import open_store
    from stages.report.page import page
    from stages.report.root import RunRoot

    open_store(root).write(PAGE, page(RunRoot(root)).encode())
    return f"{root.rstrip('/')}/{PAGE}"


def look_next(root: str) -> str:
    """For the end of a job: the page, made anew, the pictures, and the command that tells the rest."""
    from stages.report.root import RunRoot
    from stages.report.samples import pictures

    lines = [write_report(root), *pictures(RunRoot(root))["path"], f"python jobs/stats.py {root}"]
    return "\n".join(["Look next at", *(f"  {line}" for line in lines)])
