"""A stage on Ray Train: as many processes as the recipe's workers, made anew where one is lost.

What training comes to lies in the stage's folder and goes on from there; Ray keeps no checkpoints of its own. So a lost
worker costs the updates since the last checkpoint.
"""

import os
import secrets
from collections.abc import Mapping
from typing import Any

from model.training.recipe import TrainRecipe
from model.training.stage import train_stage
from model.training.world import World
from pipeline.errors import PipelineError
from pipeline.recipe import Json
from pipeline.storage import absolute_root

NOISE = "Failed to query Ray Train Controller actor state|Reporting training result"
"""Lines that say nothing to a person. An embedded Ray has no dashboard, and an actor that asks it complains every
second; every worker tells every report."""


def train_on_ray(recipe: TrainRecipe, settings: Mapping[str, Json]) -> None:
    """Raises PipelineError where training cannot go on, or more workers are lost than the recipe allows."""
    _quieten()
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from pipeline.ray_executor import running_ray

    with running_ray(recipe.cpus):
        on_gpus = recipe.device == "cuda" or recipe.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "recipe": recipe.model_dump(mode="json"),
                "settings": dict(settings),
                # Relative paths of a laptop's recipe count from here; a cluster's job has its own folder on each node.
                "folder": None if os.environ.get("RAY_ADDRESS") else os.getcwd(),
            },
            torch_config=TorchConfig(backend="nccl" if on_gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=recipe.workers,
                use_gpu=on_gpus,
                resources_per_worker={"GPU": 1} if on_gpus else {"CPU": recipe.threads},
            ),
            run_config=RunConfig(
                name=secrets.token_hex(4),  # of an earlier run Ray would go on with what it knows
                storage_path=absolute_root(f"{recipe.folder}/ray"),
                failure_config=FailureConfig(max_failures=recipe.failures),
            ),
        )
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            raise PipelineError(f"training stopped: {error}") from error
    if result.return_value:
        raise PipelineError(result.return_value)


def _quieten() -> None:
    """So that a person sees the training's own lines. Ray reads this when it is imported."""
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", NOISE)
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes this machine away


def _work(config: dict[str, Any]) -> str | None:
    """In every process. What stops all of them alike is returned, for Ray would only begin again."""
    import torch
    from ray import train
    from ray.train.torch import get_device

    from model.training.loop import NotFinite
    from pipeline.progress import show_progress

    if config["folder"]:
        os.chdir(config["folder"])
    recipe = TrainRecipe.model_validate(config["recipe"])
    show_progress()
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(recipe.threads)
    try:
        train_stage(recipe, config["settings"], World.here(device), lambda figures: train.report(dict(figures)))
    except NotFinite as error:
        return str(error)
    return None
