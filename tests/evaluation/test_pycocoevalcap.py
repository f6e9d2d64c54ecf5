"""Against the real thing: pycocoevalcap and its jars, in an environment of their own (REVILM_COCO_ENV, with Java)."""

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from model.evaluation.jar_metrics import Java, NotComputed, meteor, spice
from model.evaluation.ptb_tokenizer import ptb_tokens
from tests.evaluation.captions import CANDIDATES, METEOR, REFERENCES
from trials.benchmarks.metrics import metrics

pytestmark = pytest.mark.slow

# Captions by themselves: a line between them, because the program lets a full stop hang on what follows.
TOKENIZE = """
import json, sys
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
texts = json.load(open(sys.argv[1]))
given = {place: [{"caption": text}, {"caption": "zq"}] for place, text in enumerate(texts)}
print(json.dumps([tokens[0] for tokens in PTBTokenizer().tokenize(given).values()]))
"""


@pytest.fixture(scope="module")
def package() -> Path:
    """The folder of pycocoevalcap."""
    home = os.environ.get("REVILM_COCO_ENV")
    if home is None or shutil.which("java") is None:
        pytest.skip("no pycocoevalcap (set REVILM_COCO_ENV to an environment that holds it) or no Java")
    return next(Path(home).glob("lib/python*/site-packages/pycocoevalcap"))


def test_real_captions_have_its_tokens(package: Path, real_data: Path, tmp_path: Path) -> None:
    lists = Path(real_data, "cc3m", "Validation_GCC-1.1.0-Validation.tsv").read_text("utf-8").splitlines()
    flickr = json.loads(gzip.decompress(Path(real_data, "flickr8k", "dataset_flickr8k.json.gz").read_bytes()))
    texts = [line.split("\t")[0] for line in lists]
    texts += [each["raw"] for image in flickr["images"] for each in image["sentences"]]
    assert len(texts) > 50_000
    file = Path(tmp_path, "captions.json")
    file.write_text(json.dumps(texts))
    python = Path(os.environ["REVILM_COCO_ENV"], "bin", "python")
    done = subprocess.run([python, "-c", TOKENIZE, file], capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    differ = [text for text, tokens in zip(texts, theirs, strict=True) if " ".join(ptb_tokens(text)) != tokens]
    assert differ == []


def test_meteor_is_its_meteor(package: Path) -> None:
    jar = Path(package, "meteor", "meteor-1.5.jar")
    assert meteor(Java(jar), candidates=CANDIDATES, references=REFERENCES) == pytest.approx(METEOR, abs=1e-12)


def test_spice_without_corenlp_says_what_is_missing(package: Path) -> None:
    if list(Path(package, "spice", "lib").glob("stanford-corenlp*")):
        pytest.skip("CoreNLP is there")
    found = spice(Java(Path(package, "spice", "spice-1.0.jar")), candidates=CANDIDATES, references=REFERENCES)
    assert isinstance(found, NotComputed)
    assert "NoClassDefFoundError: edu/stanford/nlp" in str(found)


def test_the_benchmark_compares_equal_scores(package: Path) -> None:
    told = dict(metrics(images=200, references=3))
    (apart,) = (figure for what, figure in told.items() if what.startswith("largest difference"))
    assert float(apart) < 1e-12
