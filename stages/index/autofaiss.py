"""`factory: autofaiss`: the FAISS string that autofaiss recommends for a corpus and a memory budget; we build it.

autofaiss needs numpy 1 (so pyarrow before 22), and a FAISS of before 1.15, where OPQMatrix takes other arguments. So it
is asked in an environment of its own, for its rule alone: arithmetic on rows, width and budget.
"""

from collections.abc import Sequence

from pipeline.errors import RecipeError
from stages.index.faiss_index import empty_index

PACKAGES = ("autofaiss==2.18.0", "numpy<2", "pyarrow<22", "faiss-cpu<=1.13.2")
RULE = "autofaiss.external.optimize:get_optimal_index_keys_v2"
INSTEAD = "set index.factory to auto or to a FAISS string such as IVF4096,PQ64"


def ask_autofaiss(rows: int, width: int, budget_bytes: int) -> str:
    """The first of its proposals that can be served. The budget is for codes and ids; autofaiss does not count
    centroids, and does not look at it below 10,000 rows. Raises RecipeError."""
    from pipeline.ray_environment import call_with_packages

    question = {
        "nb_vectors": rows,
        "dim_vector": width,
        "max_index_memory_usage": f"{budget_bytes}B",
        "should_be_memory_mappable": True,  # as ours is; else it prefers HNSW, which is no inverted file
    }
    keys = call_with_packages(RULE, question, PACKAGES, instead=INSTEAD)
    if not keys:
        raise RecipeError(
            f"index.factory autofaiss: nothing that autofaiss knows for {rows:,} vectors {width} wide fits the memory "
            f"budget of {budget_bytes / 2**30:.3g} GiB. Raise index.memory_gib, or {INSTEAD}. Nothing was written."
        )
    return first_served(keys, width)


def first_served(keys: Sequence[str], width: int) -> str:
    """Raises RecipeError where there is none: with the keys, and why the first is none."""
    faults = {}
    for key in dict.fromkeys(keys):
        try:
            empty_index(key, width)
        except RecipeError as error:
            faults[key] = str(error)
        else:
            return key
    raise RecipeError(f"index.factory autofaiss: it proposes {', '.join(faults)}; {faults[keys[0]]}")
