"""Build an index with autofaiss; run by the Python of an environment that holds it.

python autofaiss_rival.py FOLDER_OF_NPY INTO BYTES    prints one JSON object
"""

import json
import sys
import time
from typing import Any


def build(vectors: str, into: str, budget: str) -> Any:
    import faiss
    from autofaiss import build_index  # type: ignore[import-not-found]

    started = time.perf_counter()
    index, told = build_index(
        vectors,
        index_path=into,
        index_infos_path=f"{into}.json",
        max_index_memory_usage=f"{int(budget)}B",
        current_memory_available="16GB",
        metric_type="ip",
        nb_cores=2,
        verbose=40,
    )
    seconds = time.perf_counter() - started
    ivf = faiss.extract_index_ivf(index)
    return {"seconds": seconds, "key": told["index_key"], "nprobe": ivf.nprobe}


if __name__ == "__main__":
    print(json.dumps(build(*sys.argv[1:])))  # noqa: T201
