"""What live retrieval adds to captioning: pictures to captions end to end beside generation alone, in one process.

The index holds drawn vectors under CLIP's own shape, and captions of real lengths. Its encoder is the model's own image
encoder (one forward serves both), or one of other weights, so that a second one runs.
"""

import copy
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from demo.scenes import random_scene, render
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from trials.benchmarks.vector_corpus import GivenCorpus
from trials.benchmarks.vectors import clip_like

if TYPE_CHECKING:
    from model.evaluation.captioner import Caption, Captioner
    from model.evaluation.given import Given
    from model.revilm import ReViLM
    from model.sequence import Chunk
    from trials.benchmarks.model_samples import Captions

Line = tuple[str, str]
ENCODER = "ViT-B-32"


@dataclass(frozen=True)
class Sizes:
    preset: str = "base"
    pairs: int = 100_000
    pictures: int = 16  # a batch
    new_tokens: int = 20
    beams: int = 3
    repetitions: int = 3


def captioning(sizes: Sizes = Sizes()) -> Iterator[Line]:
    """On one thread, in CPU seconds; both ways give the same captions."""
    from trials.benchmarks.model_samples import Captions
    from trials.benchmarks.race import one_thread

    texts = Captions.read()
    with tempfile.TemporaryDirectory(dir=".") as folder, one_thread():
        root = indexed(Path(folder), sizes, texts)
        model = seeing(sizes.preset, Path(folder, "encoder.safetensors"))
        told = (
            f"{sizes.preset}, {sizes.pictures} pictures of 640 × 480 px, beam {sizes.beams}, {sizes.new_tokens} tokens"
        )
        yield "model, index", f"{told}; {sizes.pairs:,} pairs, {ENCODER}, {texts.told}"
        for name, target, seen in (
            ("one encoder for both", " (target ≤ 1.10)", model),
            ("a second encoder for the keys", "", with_other_encoder(model)),
        ):
            captioner = opened(seen, texts, root, sizes)
            assert captioner.sight.shared == (seen is model)
            yield from ((f"{name}: {line}", figure) for line, figure in compared(captioner, sizes, target))


def indexed(folder: Path, sizes: Sizes, texts: "Captions") -> str:
    """A root as a finished run leaves it, by an encoder of random weights that lie beside it."""
    import torch
    from safetensors.torch import save_file

    from stages.embed.towers import Towers
    from stages.index import IndexRecipe, index_stages

    torch.manual_seed(0)
    weights = folder.absolute() / "encoder.safetensors"
    save_file(Towers.load(ENCODER, None).model.state_dict(), weights)
    vectors = np.concatenate([*clip_like(sizes.pairs, seed=1)])
    stages = [GivenCorpus(vectors, texts.texts), *index_stages(IndexRecipe(min_recall=None, queries=100))]
    recipe = f"embed: {{model: {ENCODER}, pretrained: {weights}}}"
    assert Run(str(folder / "root"), stages, recipe=recipe).execute(LocalExecutor()).exit_code == 0
    return str(folder / "root")


def seeing(preset: str, weights: Path) -> "ReViLM":
    """A model with the index's encoder."""
    from model.open_clip_weights import config_of, read_weights
    from trials.benchmarks.model_samples import pretraining

    model = pretraining(preset, "cross").eval()
    assert model.config.vision is not None
    encoder = config_of(ENCODER)
    assert model.config.vision.encoder == encoder, f"{preset} looks at pictures by another encoder"
    model.image_encoder = read_weights(encoder, weights)
    return model.eval()


def with_other_encoder(model: "ReViLM") -> "ReViLM":
    """All other parts are the model's own."""
    import torch

    parts = {id(part): part for name, part in model.named_children() if name != "image_encoder"}
    other = copy.deepcopy(model, parts)
    assert other.image_encoder is not None
    with torch.no_grad():
        other.image_encoder.ln_post.weight[0] += 1e-3
    return other


def opened(model: "ReViLM", texts: "Captions", root: str, sizes: Sizes) -> "Captioner":
    from model.evaluation.answerer import Answerer, Decoding
    from model.evaluation.captioner import Captioner
    from model.evaluation.live_index import LiveIndex
    from model.sequence import SequenceBuilder

    # The preset's shape, the tokenizer's own end-of-text.
    text = replace(model.config.language_model, end_of_text=texts.tokenizer.end_of_text)
    answerer = Answerer(model, SequenceBuilder(replace(model.config, language_model=text), texts.tokenizer))
    decoding = Decoding(beams=sizes.beams, max_new_tokens=sizes.new_tokens)
    return Captioner(answerer, LiveIndex(root), decoding, model.config.retrieval.neighbors)


def compared(captioner: "Captioner", sizes: Sizes, target: str) -> Iterator[Line]:
    from trials.benchmarks.race import in_turns, ratios, spread

    given = pictures(sizes.pictures)
    captions = list(captioner.captions(iter(given)))
    prompts = [
        [chunk(captioner, each.jpeg or b"", [neighbor.caption for neighbor in each.neighbors])] for each in captions
    ]
    found: dict[str, list[str]] = {}

    def generate() -> None:
        found["alone"] = captioner.answerer.say(prompts, captioner.decoding)

    def whole() -> None:
        found["whole"] = [each.caption or "" for each in captioner.captions(iter(given))]

    works: Mapping[str, Callable[[], object]] = {"alone": generate, "whole": whole}
    times = in_turns(works, sizes.repetitions)
    assert found["alone"] == found["whole"]
    for name, what in (("alone", "generation alone"), ("whole", "end to end")):
        rates = [sizes.pictures / each for each in times[name]]
        yield what, f"{spread(times[name])} s, {spread(rates, '{:.2f}')} captions/s"
    yield "ratio", f"{spread(ratios(times['whole'], times['alone']), '{:.3f}')}{target}"
    yield from parts(captioner, given, captions)


def parts(captioner: "Captioner", given: "Sequence[Given]", captions: "Sequence[Caption]") -> Iterator[Line]:
    """CPU time a picture of what is done beside generation."""
    from model.evaluation.captioner import as_stored
    from trials.benchmarks.clock import cpu_seconds

    index, jpegs = captioner.index, [each.jpeg or b"" for each in captions]
    assert index is not None
    stored = [each for each in map(as_stored, given) if not isinstance(each, str)]
    keys = index.embed(jpegs)
    spent = {
        "made as a crawl stores it": cpu_seconds(lambda: [*map(as_stored, given)]),
        "the index's encoder": cpu_seconds(lambda: index.embed(jpegs)),
        "search": cpu_seconds(lambda: index.neighbors(stored, keys, captioner.neighbors)),
    }
    yield "a picture", ", ".join(f"{what} {1000 * took / len(given):.1f} ms" for what, took in spent.items())


def chunk(captioner: "Captioner", jpeg: bytes, neighbors: Sequence[str]) -> "Chunk":
    from model.sequence import Chunk

    return Chunk(image=captioner.sight.pixels(jpeg), neighbors=neighbors, ends=False)


def pictures(count: int) -> "list[Given]":
    from model.evaluation.given import Given

    random, found = Random(0), []
    for number in range(count):
        written = io.BytesIO()
        render(random_scene(random), width_px=640, height_px=480).save(written, "JPEG", quality=90)
        found.append(Given(f"{number}", written.getvalue()))
    return found
