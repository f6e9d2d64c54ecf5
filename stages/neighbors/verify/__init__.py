"""Whether the files of the stage `neighbors` are right, told from the files alone.

Reads   the committed files of `neighbors`, and of the corpora that its plan names: metadata, img_emb, text_emb; those
        of `interleaved`
Checks  of all rows: alignment, every neighbour listed (its row, pair id, caption, similarity, order), every leakage
        rule (Re-ViLM §3.3). Of a sample: brute force over all databases, in float64. Of five-pair samples, where they
        are named: what they tell of their pairs, the band, and every rule against all five pairs (§4.2); of a sample of
        queries, their supports by brute force over the corpus
Shares nothing with the code that made the files but the schemas and the commit protocol.
"""

from collections.abc import Mapping

import numpy as np

from pipeline.commits import Whole
from pipeline.errors import InputError
from stages.neighbors.verify.blocks import Block, holders_of, read_blocks
from stages.neighbors.verify.databases import Databases, SearchPlan, spans_of_corpus
from stages.neighbors.verify.findings import Check, Findings, Recall
from stages.neighbors.verify.interleaved import verify_samples
from stages.neighbors.verify.rows import check_rows
from stages.neighbors.verify.sample import check_sample

__all__ = ["Check", "Findings", "verify"]


def verify(root: str, sample: int, seed: int, interleaved: str | None = None) -> Findings:
    """sample: how many rows are searched for again, and queries mined again. interleaved: a root of five-pair samples,
    with these neighbours or with none. Memory is bounded by a block of rows, or a shard of samples, and a byte a pair.

    Raises InputError where a stage is not whole, or a corpus is not the one that it was made of.
    """
    whole = Whole.open(root, "neighbors")
    plan = SearchPlan.of(whole)
    _refuse_another(plan.corpus, whole.manifest.inputs)
    databases, corpus = Databases.open(plan), spans_of_corpus(plan.corpus)
    rows = sum(span.rows for span in corpus)
    drawn = np.random.default_rng(seed).choice(rows, min(sample, rows), replace=False)
    findings, sampled = Findings(), []
    holders = holders_of(whole, findings)
    for block in read_blocks(holders, corpus, findings):
        check_rows(block, databases, plan.k, findings)
        sampled.append(block.take(np.flatnonzero(np.isin(block.pairs["row"].to_numpy(), drawn))))
    num_sampled = sum(block.rows for block in sampled)
    if num_sampled:
        shares = check_sample(Block.joined(sampled), databases, plan, findings)
        findings.recall = Recall(plan.k, len(shares), float(shares.mean())) if len(shares) else None
    findings.sampling = _told(plan, databases, num_sampled, rows, seed)
    if interleaved:
        findings.sampling += "\n" + (
            "The five-pair samples were not checked, because neighbours are missing or stand beside other pairs."
            if findings.faults[Check.FILES] + findings.faults[Check.ROWS]
            else verify_samples(interleaved, whole, holders, databases, (sample, seed), findings)
        )
    return findings


def _refuse_another(corpus: str, made_of: Mapping[str, str]) -> None:
    """made_of: the inputs of the neighbours' manifest, and the identity of each."""
    found, asked = Whole.open(corpus, "corpus").identity, made_of["corpus"]
    if found != asked:
        raise InputError(
            f"{corpus}/corpus is not the one whose pairs asked: its identity was {asked[:12]} and is {found[:12]}. "
            "Make the neighbours anew."
        )


def _told(plan: SearchPlan, databases: Databases, num_sampled: int, rows: int, seed: int) -> str:
    told = [
        f"Searched again by brute force over all {databases.rows:,} database rows: {num_sampled:,} of {rows:,} rows "
        f"(seed {seed})."
    ]
    if num_sampled < rows:
        told.append("Of the others, neither better neighbours nor the counts of removals were looked for.")
    if plan.engine == "index":
        told.append("The search was approximate: what it misses is recall, and its counts of removals stand unchecked.")
    return "\n".join(told)
