"""A model reads neighbours that were found by the encoder it was trained with, and says which that was."""

import json
import logging
from pathlib import Path

import pytest

from jobs.caption import main
from model.checkpoint import save_pretrained
from model.evaluation.answerer import Decoding
from model.evaluation.captioner import Captioner
from model.training.checkpoints import ALL_MADE, KEY_ENCODERS, MODEL, STATE, Checkpoints
from model.training.key_encoders import Encoder, key_encoders
from model.training.recipe import SourceRecipe
from pipeline.commits import Whole
from tests.evaluation.indexed import config
from tests.model.small_models import small_model
from tests.model.test_checkpoint import TOKENIZER


def finished_stage(folder: Path, state: dict[str, object]) -> str:
    checkpoints = Checkpoints(str(folder))
    with checkpoints.writing(1) as made:
        save_pretrained(made / MODEL, small_model(config()), TOKENIZER)
        (made / STATE).write_text(json.dumps(state))
    checkpoints.finish(1, ALL_MADE)
    return str(folder)


def test_training_tells_whose_vectors_its_neighbours_were_found_by(database: str) -> None:
    trained = Whole.open(database, "encoder").identity
    assert key_encoders([SourceRecipe(corpus=database, batch=1)]) == [("encoder", trained)]


@pytest.mark.parametrize("known", [True, False])
def test_an_index_of_the_same_keys_is_taken_and_so_is_one_that_cannot_be_compared(
    known: bool, database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Checkpoints of older versions do not say."""
    caplog.set_level(logging.INFO)
    said: list[Encoder] = key_encoders([SourceRecipe(corpus=database, batch=1)])
    stage = finished_stage(tmp_path / "pretrain", {KEY_ENCODERS: said} if known else {})
    assert Captioner.open(stage, database, Decoding()).neighbors == 2
    assert (f"{stage} does not say whose vectors" in caplog.text) != known


def test_an_index_of_other_keys_is_refused_and_both_are_named_unless_it_is_asked_for(
    database: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = finished_stage(tmp_path / "pretrain", {KEY_ENCODERS: [("ViT-B-32", "laion2b_s34b_b79k")]})
    asked = [stage, str(pictures / "00.png"), "--index", database, "--max-new-tokens", "5"]
    assert main(asked) == 2
    said = capsys.readouterr().err
    theirs = Whole.open(database, "encoder").identity[:12]
    assert "found by ViT-B-32 (laion2b_s34b_b79k)" in said
    assert f"the vectors of {database} are by encoder ({theirs})" in said
    assert "--other-encoder" in said
    assert main([*asked, "--other-encoder"]) == 0
    assert main([stage, str(pictures / "00.png"), "--no-retrieval", "--max-new-tokens", "5"]) == 0
