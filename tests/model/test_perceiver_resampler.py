"""Pictures and videos of any length become the same number of latents."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from model.config import ResamplerConfig
from model.perceiver_resampler import PerceiverResampler
from tests.model.small_models import VISUAL_WIDTH, close, picture, randomise, written_out


def small_resampler() -> PerceiverResampler:
    """4 latents; a table of 3 frames."""
    resampler = PerceiverResampler(ResamplerConfig(layers=2, latents=4, frames=3, head_width=8), VISUAL_WIDTH)
    randomise(resampler)
    return resampler


@torch.no_grad()
def latents_of(resampler: PerceiverResampler, *videos: Tensor) -> Tensor:
    """(N, R, E)."""
    return resampler(torch.cat(videos), frames_of(*map(len, videos)))  # type: ignore[no-any-return]


def frames_of(*counts: int) -> Tensor:
    """(N, F): so many frames each, one video after the other."""
    last = torch.tensor(counts).cumsum(0)
    rows = [torch.arange(int(end) - count, int(end)) for count, end in zip(counts, last, strict=True)]
    return pad_sequence(rows, batch_first=True, padding_value=-1)


def test_latents_look_at_the_patches_and_at_themselves() -> None:
    resampler, patches = small_resampler().requires_grad_(False), picture(1)[0]
    latents = resampler.latents
    for layer in resampler.layers:
        normed = layer.latent_norm(latents)  # type: ignore[operator]
        seen = torch.cat((layer.patch_norm(patches + resampler.time[0]), normed))  # type: ignore[operator]
        keys, values = layer.key_value(seen).chunk(2, dim=-1)  # type: ignore[operator]
        queries = layer.query(normed)  # type: ignore[operator]
        read = [written_out(query, keys, values, head_width=8) for query in queries]
        latents = latents + layer.output(torch.stack(read))  # type: ignore[operator]
        latents = latents + layer.down(F.gelu(layer.up(layer.feed_forward_norm(latents))))  # type: ignore[operator]
    assert close(latents_of(resampler, picture(1))[0], resampler.norm(latents), within=1e-5)


def test_pictures_and_videos_together_are_each_of_them_alone() -> None:
    resampler = small_resampler()
    videos = [picture(1), picture(2, frames=3), picture(3, frames=2), picture(4), picture(5, frames=7)]
    found = latents_of(resampler, *videos)
    assert found.shape == (5, 4, VISUAL_WIDTH)
    for number, video in enumerate(videos):
        assert close(found[number], latents_of(resampler, video)[0], within=1e-5)


def test_a_picture_is_a_video_of_one_frame() -> None:
    resampler = small_resampler()
    longer = picture(2, frames=3)
    assert close(latents_of(resampler, longer[:1], longer)[0], latents_of(resampler, longer[:1])[0], within=1e-5)
    assert not close(latents_of(resampler, longer)[0], latents_of(resampler, longer[:1])[0], within=1e-2)


def test_the_order_of_frames_matters_by_their_time_embeddings_alone() -> None:
    resampler, video = small_resampler(), picture(1, frames=3)
    assert not close(latents_of(resampler, video.flip(0)), latents_of(resampler, video), within=1e-2)
    torch.nn.init.zeros_(resampler.time)
    assert close(latents_of(resampler, video.flip(0)), latents_of(resampler, video), within=1e-5)


def test_the_order_of_patches_does_not_matter() -> None:
    resampler, video = small_resampler(), picture(1, frames=2)
    assert close(latents_of(resampler, video.flip(1)), latents_of(resampler, video), within=1e-5)


def test_every_patch_matters() -> None:
    resampler, video = small_resampler(), picture(1, frames=5)
    due = latents_of(resampler, video)
    for frame in range(video.shape[0]):
        for patch in range(video.shape[1]):
            changed = video.clone()
            changed[frame, patch] *= -1
            assert not close(latents_of(resampler, changed), due, within=1e-4)


def test_latents_in_another_order_come_out_in_that_order() -> None:
    resampler = small_resampler()
    due = latents_of(resampler, picture(1))
    with torch.no_grad():
        resampler.latents.copy_(resampler.latents.flip(0))
    assert close(latents_of(resampler, picture(1)), due.flip(1), within=1e-5)


def test_a_short_video_takes_the_first_times_and_a_long_one_stretches_them() -> None:
    resampler = small_resampler()
    one, two, three = resampler.time
    found = resampler.time_of(frames_of(1, 2, 3, 5) >= 0)
    assert torch.equal(found[0, 0], one)
    assert torch.equal(found[1, :2], torch.stack([one, two]))
    assert torch.equal(found[2, :3], resampler.time)
    stretched = torch.stack([one, (one + two) / 2, two, (two + three) / 2, three])
    assert close(found[3], stretched, within=1e-6)


def test_a_picture_that_is_not_a_number_spoils_no_other() -> None:
    nan = torch.full_like(picture(1), torch.nan)
    found = latents_of(small_resampler(), nan, picture(2, frames=2), picture(3))
    assert found[0].isnan().all()
    assert found[1:].isfinite().all()


def test_without_a_picture_there_are_no_latents_and_gradients_of_zero() -> None:
    resampler = small_resampler()
    found = resampler(torch.zeros(0, 4, VISUAL_WIDTH), torch.zeros(0, 0, dtype=torch.int64))
    assert found.shape == (0, 4, VISUAL_WIDTH)
    found.sum().backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in resampler.parameters())
