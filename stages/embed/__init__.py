"""Picture and caption of every pair as vectors of CLIP, and how well the two agree.

Reads   download: the pictures in the tar and the rows that have one; encoder, where the run trains its own
Writes  pairs (EMBEDDED: mended caption and clip_score), img_emb and text_emb (float16, norm 1), row-aligned
Rejects corrupt_image
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import pyarrow.compute as pc
import yaml
from pydantic import AfterValidator, Field, ValidationError

from pipeline.checksums import sha256_of_file
from pipeline.commits import StageFolder, Whole, resolve_folder
from pipeline.errors import InputError
from pipeline.recipe import Json, Section
from pipeline.stage import Counts, Input, Need, Resources, Stage
from pipeline.storage import open_store
from pipeline.writer import ShardWriter, Task

if TYPE_CHECKING:
    from stages.embed.towers import Towers

OWN = "encoder"  # the model that this run's stage of that name trained


def _model_configs() -> Path:
    package = find_spec("open_clip")  # found, not imported: that takes seconds
    assert package is not None, "open_clip is a dependency"
    assert package.origin is not None, "open_clip is a package"
    return Path(package.origin).parent / "model_configs"


def _known_model(name: str) -> str:
    names = [OWN, *sorted(path.stem for path in _model_configs().glob("*.json"))]
    if name not in names:
        near = ", ".join(difflib.get_close_matches(name, names) or [OWN, "ViT-B-32", "ViT-L-14"])
        raise ValueError(f"neither {OWN!r} nor one of open_clip's {len(names) - 1} models; near are {near}")
    return name


def _existing_weights(pretrained: str) -> str:
    if _is_file(pretrained) and not Path(pretrained).is_file():
        raise ValueError("there is no such file")
    return pretrained


def _is_file(pretrained: str) -> bool:
    return pretrained.endswith(".safetensors")


def _decide_device(device: str) -> str:
    if device == "auto":
        return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"
    return device


class EmbedRecipe(Section):
    model: Annotated[str, AfterValidator(_known_model)] = "ViT-B-32"  # open_clip's name of it, or encoder
    pretrained: Annotated[str, AfterValidator(_existing_weights)] = "laion2b_s34b_b79k"  # tag or .safetensors file
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = Field(default=64, ge=1)  # pictures; another size changes the last bits of the result
    # auto: cuda where the machine that reads the recipe has a GPU
    device: Annotated[Literal["auto", "cpu", "cuda"], AfterValidator(_decide_device)] = Field(
        default="auto", validate_default=True
    )
    cpus: int = Field(default=2, ge=1)  # of one worker; without a GPU the model computes with as many threads
    decode_threads: int = Field(default=2, ge=1)  # of one worker
    workers: int | None = Field(default=None, ge=1)  # None: as many as the cluster holds


@dataclass(frozen=True)
class Embed(Stage["Towers"]):
    recipe: EmbedRecipe
    name, version, stateful = "embed", 1, True

    @property
    def inputs(self) -> Sequence[Input]:
        own = [Input(OWN, Need.WHOLE)] if self.recipe.model == OWN else []
        return [Input("download"), *own]

    @property
    def resources(self) -> Resources:
        return Resources(
            cpus=self.recipe.cpus,
            gpus=1 if self.recipe.device == "cuda" else 0,
            memory_gib=2,  # measured: 1.2 with ViT-B-32 in float32 and batches of 64
            threads=self.recipe.cpus,
            workers=self.recipe.workers,
        )

    def settings(self) -> Mapping[str, Json]:
        settings = self.recipe.model_dump(include={"model", "precision", "batch_size"})
        return settings if self.recipe.model == OWN else settings | {"weights": _weights(self.recipe.pretrained)}

    def conditions(self) -> Mapping[str, Json]:
        return {"device": self.recipe.device, "threads": self.recipe.cpus}

    def pair_ids(self, task: Task) -> list[str]:
        fetched = task.read("download").table("pairs", ["key", "reason"])
        return cast(list[str], fetched.filter(pc.is_null(fetched["reason"]))["key"].to_pylist())

    def open(self, task: Task) -> "Towers":
        return open_towers(self.recipe, task.whole(OWN) if self.recipe.model == OWN else None)

    def process(self, task: Task, out: ShardWriter, state: "Towers") -> Counts:
        from stages.embed.shard import embed_shard

        return embed_shard(task.read("download"), out, state, self.recipe.batch_size, self.recipe.decode_threads)


def open_towers(recipe: EmbedRecipe, encoder: Whole | None) -> "Towers":
    """The model of a recipe, for this stage and for queries against its vectors. encoder: the stage that trained it.

    Raises InputError where the weights cannot be had or the device is not there.
    """
    from stages.embed.towers import Towers

    if encoder is None:
        return Towers.load(recipe.model, recipe.pretrained, recipe.precision, recipe.device)
    (shard,) = encoder.shards
    trained = encoder.read(shard)
    return Towers.load_files(trained.path("config"), trained.path("weights"), recipe.precision, recipe.device)


@dataclass(frozen=True)
class Embedder:
    """The model that made a run's vectors, for whatever is to be compared with them. root: of the run that made them,
    which may be the base of the one that was asked."""

    root: str
    recipe: EmbedRecipe

    @classmethod
    def of(cls, root: str, device: str = "auto", *, to_the_bit: bool = True) -> "Embedder":
        """device: where it is to compute now. to_the_bit: False: only its meaning has to be that of the vectors, as for
        queries; these may also be of a run that does not say how it made them.

        Raises InputError where the recipe beside the vectors is missing, names a model that is not here, or another one
        than they were made by: it may have been written over, and a file of weights too.
        """
        folder = resolve_folder(root, Embed.name)
        try:
            recipe = yaml.safe_load(open_store(folder.root).read("recipe.yaml"))
            embed = EmbedRecipe.model_validate(recipe.get("embed", {}) | {"device": device})
        except FileNotFoundError:
            raise InputError(
                f"{folder.root}/recipe.yaml is missing, and it says which model made the vectors"
            ) from None
        except ValidationError as error:
            raise InputError(f"{folder.root}/recipe.yaml names no model that is here: {error}") from None
        _refuse_other_model(folder, embed, to_the_bit=to_the_bit)
        return cls(folder.root, embed)

    @property
    def inputs(self) -> Sequence[Input]:
        """Of a stage that opens the model."""
        return [Input(OWN, Need.WHOLE, self.root)] if self.recipe.model == OWN else []

    def open(self) -> "Towers":
        """Raises InputError as open_towers does."""
        return open_towers(self.recipe, Whole.open(self.root, OWN) if self.recipe.model == OWN else None)


def _refuse_other_model(folder: StageFolder, asked: EmbedRecipe, *, to_the_bit: bool) -> None:
    plan = folder.plan()
    if plan is None and not to_the_bit:
        return
    if plan is None:
        raise InputError(f"{folder.root} holds no vectors that a model made: its stage {Embed.name} was never run")
    made, said = plan.parts["settings"], Embed(asked).settings()
    for name in {**made, **said} if to_the_bit else ("model", "weights"):
        if made.get(name) != said.get(name):
            raise InputError(
                f"{folder.root}/recipe.yaml says that {name} of embed is {said.get(name)!r}, but the vectors there "
                f"were made by {made.get(name)!r}, and others cannot be compared with them. Restore it"
            )


def width_of(recipe: EmbedRecipe) -> int | None:
    """Of its embeddings; None: known when the run's encoder is there."""
    if recipe.model == OWN:
        return None
    return int(json.loads((_model_configs() / f"{recipe.model}.json").read_text(encoding="utf-8"))["embed_dim"])


def _weights(pretrained: str) -> str:
    """A file counts by its content, a tag of open_clip's by its name."""
    return f"sha256:{_sha256_of(pretrained)}" if _is_file(pretrained) else pretrained


@cache
def _sha256_of(path: str) -> str:
    return sha256_of_file(Path(path))
