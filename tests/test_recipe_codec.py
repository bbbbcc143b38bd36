"""The codec's recipe: what its distances measure, that it learns, and that it goes on after a break."""

import torch

from minigen.codec import Codec, CodecConfig, load_codec
from minigen.recipes.codec import (
    CodecRecipe,
    _resume,
    _save,
    codec_figures,
    mel_distance,
    roughness_ratio,
    train_codec,
)

TINY = CodecConfig(width=32, blocks=1, latent=8, num_codebooks=2, codebook_size=16)


class Tones:
    """A corpus of 24 tones of half a second, as far as the recipe looks at one."""

    def __len__(self):
        return 24

    def load(self, i):
        t = torch.arange(8000) / 16000
        return 0.5 * torch.sin(2 * torch.pi * (200 + 100 * i) * t)[None, None]


def noise(seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(1, 1, 16000, generator=torch.Generator().manual_seed(seed))


def test_the_distance_is_zero_for_equals_and_one_for_a_tenth():
    assert mel_distance(noise(), noise()) == 0
    assert abs(mel_distance(noise(), 0.1 * noise()) - 1) < 0.01  # a factor of ten is 1 in log10


def test_grain_is_a_matter_of_texture_not_of_level_or_of_the_very_noise():
    assert abs(roughness_ratio(noise(), 0.5 * noise()) - 1) < 1e-3
    assert abs(roughness_ratio(noise(), noise(1)) - 1) < 0.03


def test_the_recipe_learns_and_writes_codec_and_card(tmp_path):
    recipe = CodecRecipe(steps=60, batch_size=8, crop=4800, learning_rate=4e-3)
    codec = train_codec(tmp_path, [Tones()], recipe, TINY, held_out=[Tones().load(3)], progress=False)
    untrained = Codec(TINY).eval()
    wavs = [Tones().load(i) for i in (2, 11, 17)]
    assert codec_figures(codec, wavs)["mel_distance"] < 0.7 * codec_figures(untrained, wavs)["mel_distance"]
    assert torch.equal(load_codec(tmp_path).encode(wavs[0]), codec.encode(wavs[0]))
    card = (tmp_path / "card.md").read_text()
    assert "| mel_distance |" in card and "| steps | 60 |" in card
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_run_goes_on_where_it_was_broken_off(tmp_path):
    codec, again = Codec(TINY), Codec(TINY)
    optimizer = torch.optim.AdamW(codec.parameters())
    codec.quantizer.stages[0].counts.fill_(3.0)
    _save(tmp_path / "c.pt", codec, optimizer, {"step": 7, "minutes": 0.5, "started": True, "curve": []})
    state = _resume(tmp_path / "c.pt", again, torch.optim.AdamW(again.parameters()))
    assert state["step"] == 7 and state["started"]
    assert all(torch.equal(a, b) for a, b in zip(codec.parameters(), again.parameters(), strict=True))
    assert torch.equal(again.quantizer.stages[0].counts, codec.quantizer.stages[0].counts)
