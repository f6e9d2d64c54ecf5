"""From a recipe to running processes, and to what they came to."""

import torch

from model.training.check import check
from model.training.checkpoints import ALL_MADE, FINISHED, MODEL, Checkpoints, Finished, result_of
from model.training.recipe import TrainRecipe
from model.training.stage import train_stage
from model.training.world import World, joined, local_device


def launch(recipe: TrainRecipe) -> str:
    """Train the recipe's stage to its end → what is to be told of it.

    Raises RecipeError, InputError, FingerprintMismatch and StorageError before anything starts, and PipelineError where
    training cannot go on."""
    settings = check(recipe)
    if Checkpoints(recipe.folder).finished() is None:
        if recipe.engine == "ray":
            from model.training.ray_train import train_on_ray

            train_on_ray(recipe, settings)
        else:
            torch.set_num_threads(recipe.threads)
            with joined():
                train_stage(recipe, settings, World.here(local_device(recipe.device)), lambda _: None)
    finished = Checkpoints(recipe.folder).finished()
    assert finished is not None, "a stage that ends is finished"
    return told(recipe, finished)


def told(recipe: TrainRecipe, finished: Finished) -> str:
    """Raises InputError where the checkpoint that the stage came to is gone."""
    stage, section = recipe.stage_and_section
    checkpoints, record = result_of(recipe.folder)
    state = checkpoints.state(record)
    figures = state["figures"]
    made = checkpoints.records()[-1].update
    best = ", the best" if finished.update < made else ""
    lines = [f"{stage}: {finished.why}; its result is update {finished.update:,}{best}"]
    if figures and state["evaluated"] != finished.update:
        lines.append(f"At update {state['evaluated']:,}, when it was last evaluated:")
    lines += [f"  {name:<26}{value:>9.4f}   {low:.4f} … {high:.4f}" for name, (value, low, high) in figures.items()]
    lines += ["", f"The model lies in {recipe.folder}/{record.folder}/{MODEL}"]
    if stage == "retrofit" and "neighbor_empty" in figures:
        lines.append(gain_told(*figures["neighbor_empty"]))
    if finished.why == ALL_MADE and made < section.updates:
        lines.append(f"For the {section.updates:,} updates of the recipe, remove {recipe.folder}/{FINISHED} first")
    return "\n".join(lines)


def gain_told(gain: float, low: float, high: float) -> str:
    verdict = "the neighbours help" if low > 0 else "no gain by neighbours is shown"
    return (
        f"Loss without neighbours minus loss: {gain:.4f} nats a token, 95 % interval {low:.4f} … {high:.4f}: {verdict}"
    )
