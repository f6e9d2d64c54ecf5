"""Score captions with pycocoevalcap; run by the Python of an environment that holds it.

python caption_rival.py CAPTIONS.json REPETITIONS    prints one JSON object
"""

import contextlib
import io
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def score(file: str, repetitions: str) -> Any:
    from pycocoevalcap.bleu.bleu import Bleu  # type: ignore[import-not-found]
    from pycocoevalcap.cider.cider import Cider  # type: ignore[import-not-found]
    from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-not-found]
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer  # type: ignore[import-not-found]

    candidates, references = json.loads(Path(file).read_text(encoding="utf-8"))
    results = {image: [caption] for image, caption in candidates.items()}
    found = {}
    for name, metric in (("bleu", Bleu(4)), ("rouge_l", Rouge()), ("cider_d", Cider())):
        measured = [_timed(lambda: metric.compute_score(references, results)[0]) for _ in range(int(repetitions))]  # noqa: B023
        scores = measured[0][1]
        found[name] = {
            "seconds": statistics.median(seconds for seconds, _ in measured),
            "scores": list(map(float, scores if isinstance(scores, list) else [scores])),
        }
    texts = {image: [{"caption": each} for each in [*references[image], candidates[image]]] for image in references}
    found["tokenizer"] = {"seconds": _timed(lambda: PTBTokenizer().tokenize(texts))[0]}
    return found


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process and the children that have ended."""
    started = _cpu()
    with contextlib.redirect_stdout(io.StringIO()):
        answer = work()
    return _cpu() - started, answer


def _cpu() -> float:
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system


if __name__ == "__main__":
    print(json.dumps(score(*sys.argv[1:])))  # noqa: T201
