"""The bit rate explorer decodes what its controls say, and the numbers it shows are those of the sound it plays."""

import base64
import io
import re

import pytest
import soundfile
import torch

from minigen.codec import Codec, CodecConfig
from minigen.course.explorers.bitrate import BitrateExplorer, bit_rate, mel_distance_db

TONE = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 16000).view(1, 1, -1)
HISS = 0.1 * torch.randn(1, 1, 6400, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def codec():
    sizes = {"width": 16, "blocks": 1, "latent": 8, "num_codebooks": 3, "codebook_size": 32}
    return Codec(CodecConfig(**sizes)).eval()


@pytest.fixture
def explorer(codec):
    return BitrateExplorer(codec, {"a <tone>": TONE, "hiss": HISS})


def played(explorer) -> torch.Tensor:
    source = re.search(r'src="data:audio/flac;base64,([^"]+)"', explorer.player.value)[1]
    return torch.from_numpy(soundfile.read(io.BytesIO(base64.b64decode(source)), dtype="float32")[0])


def test_nothing_is_decoded_before_a_control_moves(explorer):
    assert explorer.player.value == "" and explorer.picture.layout.display == "none"


@pytest.mark.parametrize("k", [1, 2])
def test_the_slider_sets_how_many_codebooks_are_summed(explorer, codec, k):
    explorer.codebooks.value = k
    wanted = codec.decode(codec.encode(TONE)[:, :k]).flatten()
    assert (played(explorer) - wanted).abs().max() < 1e-4
    assert f"{k} codebook{'s' if k > 1 else ''}, {0.25 * k:g} kb/s" in explorer.said.value


def test_the_slider_reaches_every_codebook_of_the_codec(explorer):
    assert (explorer.codebooks.min, explorer.codebooks.max, explorer.codebooks.value) == (1, 3, 3)


def test_another_sound_is_another_sound(explorer, codec):
    explorer.sound.value = "hiss"
    wanted = codec.decode(codec.encode(HISS)).flatten()
    assert (played(explorer) - wanted).abs().max() < 1e-4
    assert explorer.said.value.startswith("hiss: 3 codebooks")


def test_the_original_can_be_heard_beside_it(explorer):
    explorer.what.value = "original"
    assert (played(explorer) - TONE.flatten()).abs().max() < 1e-4
    assert "256 kb/s as 16-bit samples" in explorer.said.value


def test_a_picture_comes_with_every_sound_and_a_name_cannot_break_the_page(explorer):
    explorer.codebooks.value = 1
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")
    assert explorer.picture.layout.display is None
    assert "<tone>" not in explorer.said.value


def test_the_distance_is_zero_for_itself_and_six_db_for_half_the_amplitude():
    noise = torch.randn(1, 1, 16000)
    assert mel_distance_db(noise, noise, 16000) == 0
    assert mel_distance_db(noise, noise / 2, 16000) == pytest.approx(6.02, abs=0.01)


def test_the_distance_looks_at_what_both_sounds_have():
    noise = torch.randn(1, 1, 16000)
    assert mel_distance_db(noise[..., :8000], noise, 16000) == 0


def test_the_bit_rate_grows_with_the_codebooks(codec):
    assert [bit_rate(codec, k) for k in (1, 2, 3)] == [250, 500, 750]
