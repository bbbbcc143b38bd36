"""The codec's recipe: what its distances measure, that the fit is what it says, and that it goes on after a break."""

import time
from dataclasses import replace

import pytest
import torch

from minigen.audio import AudioError
from minigen.codec import Codec, CodecConfig, load_codec
from minigen.engine import loop
from minigen.engine.errors import MinigenError
from minigen.quantizer import VectorQuantizer
from minigen.recipes.codec.card import HeldOut, distances, has_opus, through, through_opus, times_real_time
from minigen.recipes.codec.data import Crops, Recordings
from minigen.recipes.codec.discriminator import WINDOWS, Discriminator
from minigen.recipes.codec.fit import _set_codebook, add_restorer, fit_codec, fit_restorer
from minigen.recipes.codec.losses import (
    TEXTURES,
    frame_lines,
    mel_distance,
    perplexities,
    roughness_ratio,
    size_distance,
    texture_distance,
    turn_distance,
    window_distances,
)
from minigen.recipes.codec.train import CodecRecipe, _Training, train_codec

TINY = CodecConfig(width=32, blocks=1, latent=8, num_codebooks=2, codebook_size=16)
RESTORING = replace(TINY, restorer=True, restore_reach=2, lock_phases=True)


class Tones:
    """24 tones of three quarters of a second in faint noise, as far as the recipe looks at sounds."""

    def __len__(self):
        return 24

    def load(self, i):
        t = torch.arange(12000) / 16000
        return 0.5 * torch.sin(2 * torch.pi * (200 + 100 * i) * t)[None, None] + 0.02 * noise(i)[..., :12000]


def noise(seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(1, 1, 16000, generator=torch.Generator().manual_seed(seed))


# --- the distances


def test_the_distance_is_zero_for_equals_and_one_for_a_tenth():
    assert mel_distance(noise(), noise()) == 0
    assert abs(mel_distance(noise(), 0.1 * noise()) - 1) < 0.01  # a factor of ten is 1 in log10


def test_the_distance_is_that_of_a_mel_spectrogram_of_torchaudio():
    from torchaudio.transforms import MelSpectrogram

    official = MelSpectrogram(16000, n_fft=512, hop_length=128, n_mels=40, power=1.0)
    a, b = (official(wav).clamp(min=1e-5).log10() for wav in (noise(0), noise(1)))
    assert abs(mel_distance(noise(0), noise(1), scales=((512, 40),)) - (a - b).abs().mean()) < 1e-4


def test_grain_is_a_matter_of_texture_not_of_level_or_of_the_very_noise():
    assert abs(roughness_ratio(noise(), 0.5 * noise()) - 1) < 1e-3
    assert abs(roughness_ratio(noise(), noise(1)) - 1) < 0.03
    assert window_distances(noise(), noise(1), 512, 40)[2] < 0.05


def test_a_spectrogram_that_was_ironed_has_less_grain():
    window = torch.hann_window(512)
    spectrum = torch.stft(noise()[0], 512, 128, window=window, return_complex=True)
    smooth = torch.nn.functional.avg_pool2d(spectrum.abs()[None], 5, 1, 2)[0]
    ironed = torch.istft(torch.polar(smooth, spectrum.angle()), 512, 128, window=window, length=16000)[None]
    assert roughness_ratio(noise(), ironed) < 0.9
    assert window_distances(noise(), ironed, 512, 40)[2] > 2 * window_distances(noise(), noise(1), 512, 40)[2]


@pytest.mark.parametrize("hertz", [437.0, 440.0, 1003.0])
def test_the_turn_of_a_tone_is_its_distance_from_the_bin_in_hertz(hertz):
    codec = Codec(TINY)
    wav = torch.sin(2 * torch.pi * hertz * torch.arange(16000) / 16000)[None]
    spectrum, step = codec.spectrum(wav), TINY.hop // TINY.parts
    bins = torch.arange(spectrum.shape[2]) * 16000 / TINY.n_fft
    turn = (2 * torch.pi * (hertz - bins) * step / 16000).expand(1, spectrum.shape[1], -1)
    inside = slice(4, -4)  # the first and the last frames hear the tone begin and end
    assert turn_distance(spectrum[:, inside], turn[:, inside], codec.advance) < 0.05
    assert turn_distance(spectrum[:, inside], turn[:, inside] + 1.0, codec.advance) > 0.4  # 1 - cos 1 = 0.46


def test_texture_tells_a_steady_engine_from_a_fluttering_one_and_not_one_noise_from_another():
    t = torch.arange(32000) / 16000
    engine = sum(torch.sin(2 * torch.pi * 110 * k * t + k * k) for k in range(1, 60))[None, None] / 60
    flutter = engine * (1 + 0.6 * torch.sin(2 * torch.pi * 8 * t))
    for scale in TEXTURES:
        same = texture_distance(engine + 0.1 * long_noise(0), engine + 0.1 * long_noise(1), *scale)
        changed = texture_distance(engine + 0.1 * long_noise(0), flutter + 0.1 * long_noise(1), *scale)
        assert texture_distance(engine, engine, *scale) == 0 and changed > 2 * same


def test_the_texture_of_a_very_short_crop_is_a_number():
    assert all(torch.isfinite(texture_distance(noise(0)[..., :1600], noise(1)[..., :1600], *s)) for s in TEXTURES)


def long_noise(seed: int) -> torch.Tensor:
    return torch.cat([noise(seed), noise(seed + 10)], 2)


def test_sizes_are_compared_bin_by_bin_whatever_their_phases():
    spectrum = torch.polar(torch.tensor([[[1.0, 0.1, 10.0]]]), torch.tensor([[[0.3, 2.0, -1.0]]]))
    assert size_distance(spectrum, spectrum.abs()) == 0
    wrong = size_distance(spectrum, spectrum.abs() * torch.tensor([1.0, 1.0, 10.0]))
    assert wrong == pytest.approx((1 / 3 + (100**0.3 - 10**0.3) / 3) / 2, abs=1e-5)


def test_a_frame_that_is_said_again_and_again_stands_out_in_lines():
    sound = torch.cat([noise(s) for s in range(3)], 2)
    said_again = noise()[..., :320].repeat(1, 1, 150)
    assert abs(frame_lines(sound, 50.0)) < 1
    assert frame_lines(sound + said_again, 50.0) > 8


def test_perplexity_counts_the_entries_in_use():
    codes = torch.stack([torch.arange(16), torch.zeros(16, dtype=torch.long), torch.arange(16) % 4])
    assert perplexities(codes, 16) == pytest.approx([1, 1 / 16, 4 / 16])


# --- the discriminator


def test_the_discriminator_learns_to_tell_noise_from_tones():
    torch.manual_seed(0)
    model, which = Discriminator(), WINDOWS.index(512)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    real = torch.cat([noise(s)[..., :12000] for s in range(4)])
    made = torch.cat([Tones().load(i) for i in range(4)])
    first = model.discriminator_loss(real, made, which)
    for _ in range(30):
        optimizer.zero_grad()
        model.discriminator_loss(real, made, which).backward()
        optimizer.step()
    assert model.discriminator_loss(real, made, which) < 0.2 * first
    (fine, near), (bad, far) = (model.generator_loss(real, sound, which) for sound in (real, made))
    assert near == 0 and far > 0.2 and bad > fine


# --- the recipe


RECIPE = CodecRecipe(steps=64, batch_size=8, crop=4800, learning_rate=4e-3, clips=48)


HELD_OUT = HeldOut({"tones": [Tones().load(3)]}, {"hum": [Tones().load(0)]})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    return folder, train_codec(folder, {"tones": Tones()}, RECIPE, TINY, HELD_OUT, progress=False)


def test_the_recipe_learns_and_writes_codec_and_card(trained):
    folder, codec = trained
    wavs = [Tones().load(i) for i in (2, 11, 17)]
    untrained = Codec(TINY).eval()
    assert distances(through(codec), wavs)[0] < 0.85 * distances(through(untrained), wavs)[0]
    assert torch.equal(load_codec(folder).encode(wavs[0]), codec.encode(wavs[0]))
    card = (folder / "card.md").read_text()
    assert "| tones (1) | this one |" in card and "| steps | 64 |" in card and "times real time" in card
    assert "tones (24 clips)" in card and "| hum | " in card
    assert not (folder / "checkpoint.safetensors").exists()


def fresh(folder, config=TINY) -> tuple[_Training, Crops]:
    """A training after the fit, before its first step, and its data."""
    training, crops = _Training(folder, RECIPE, None, config), Crops([Tones()], RECIPE.crop, False)
    training.fit(crops, False)
    return training, crops


@pytest.mark.parametrize("config, parts", [(TINY, set()), (RESTORING, {"restorer"})])
def test_steps_change_decoder_and_restorer_alone(tmp_path, config, parts):
    training, crops = fresh(tmp_path, config)
    before = {name: value.clone() for name, value in training.codec.state_dict().items()}
    for number in range(3):
        training.step(crops, number, 0.4)
    after = training.codec.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"from_latent", "decoder", "leave", "outline"} | parts


def test_codes_are_final_from_the_fit_on(tmp_path):
    wav = Tones().load(5)
    training, crops = fresh(tmp_path)
    codes = load_codec(tmp_path).encode(wav)
    training.step(crops, 0, 0.4)
    assert torch.equal(training.averaged().encode(wav), codes)


def test_a_codec_that_is_trained_further_gets_a_restorer_and_keeps_its_codes(tmp_path):
    wavs = [Tones().load(i) for i in range(20)]
    fresh(tmp_path / "first")
    before = [load_codec(tmp_path / "first").encode(wav) for wav in wavs]
    recipe = replace(RECIPE, steps=5)
    after = train_codec(tmp_path / "second", {"tones": Tones()}, recipe, start=tmp_path / "first", progress=False)
    assert after.config.restorer and after.config.lock_phases
    assert all(torch.equal(after.encode(wav), codes) for wav, codes in zip(wavs, before, strict=True))


def test_a_broken_run_ends_with_the_weights_of_one_that_was_not(tmp_path, monkeypatch):
    recipe, step = replace(RECIPE, steps=6, batch_size=4), _Training.step

    def train(folder):
        return train_codec(folder, {"tones": Tones()}, recipe, RESTORING, progress=False).state_dict()

    def break_before_the_fourth(training, crops, number, share):
        if number == 3:
            raise KeyboardInterrupt
        return step(training, crops, number, share)

    whole = train(tmp_path / "whole")
    monkeypatch.setattr(loop, "SAVE_MINUTES", 0.0)
    monkeypatch.setattr(_Training, "step", break_before_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken")
    monkeypatch.setattr(_Training, "step", step)
    monkeypatch.setattr(_Training, "fit", None)  # the second start does not fit again
    broken = train(tmp_path / "broken")
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


# --- the fit


@torch.no_grad()
def fitted() -> Codec:
    torch.manual_seed(0)
    codec = Codec(replace(TINY, latent=24, codebook_size=32)).eval()
    crops = Crops([Tones()], 4800, False)
    fit_codec(codec, lambda: crops.whole(48, 0), torch.Generator().manual_seed(0), 20_000)
    return codec


@torch.no_grad()
def test_the_encoder_is_the_principal_components_of_the_features():
    codec = fitted()
    x = torch.cat([codec.features(wav)[0] for wav in Crops([Tones()], 4800, False).whole(48, 0)]).double()
    _, sizes, directions = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    z = torch.cat([codec.latents(wav)[0] for wav in Crops([Tones()], 4800, False).whole(48, 0)]).double()
    expected = (x - x.mean(0)) @ directions[:24].T
    assert torch.allclose(z.abs()[:, :8], expected.abs()[:, :8], atol=1e-3)  # a direction has no sign
    assert float(z.square().sum()) == pytest.approx(float(sizes[:24].square().sum()), rel=1e-4)


@pytest.mark.parametrize("clip", [2, 9, 16, 23])
def test_the_outline_is_loudest_where_the_tone_is(clip):
    codec, wav = fitted(), Tones().load(clip)
    latents = codec.quantizer.decode(codec.encode(wav))
    outline = codec._parts(codec.outline(latents.transpose(1, 2)).transpose(1, 2), 1)[0][0]
    assert abs(int(outline.mean(0).argmax()) - (200 + 100 * clip) / 25) <= 1  # bins of 25 Hz


def test_the_linear_restorer_is_a_ridge_regression_on_the_frames_around():
    codec = add_restorer(fitted())
    clips = list(Crops([Tones()], 4800, False).whole(40, 1))
    fit_restorer(codec, clips)
    reach, rows, wanted = codec.config.restore_reach, [], []
    for wav in clips:
        z = codec.latents(wav)[0]
        q = codec.quantizer.decode(codec.encode(wav))[0]
        for t in range(len(q)):
            near = [q[u] if 0 <= u < len(q) else torch.zeros_like(q[0]) for u in range(t - reach, t + reach + 1)]
            rows.append(torch.cat([*near, torch.ones(1)]))
            wanted.append(z[t] - q[t])
    x, y = torch.stack(rows).double(), torch.stack(wanted).double()
    ridge = 1e-3 * (x.T @ x).trace() / x.shape[1] * torch.eye(x.shape[1])
    weight = torch.linalg.solve(x.T @ x + ridge, x.T @ y).float()  # its rows run over frames, then latents
    found = codec.restorer.linear.weight.permute(2, 1, 0).flatten(0, 1)
    assert torch.allclose(found, weight[:-1], atol=1e-3)
    assert torch.allclose(codec.restorer.linear.bias, weight[-1], atol=1e-3)


@torch.no_grad()
def test_restored_latents_of_other_clips_are_nearer_to_the_true_ones():
    codec = add_restorer(fitted())
    fit_restorer(codec, Crops([Tones()], 4800, False).whole(40, 1))
    wavs = [Tones().load(i)[..., 1000:] + 0.01 * noise(50 + i)[..., :11000] for i in range(0, 24, 3)]
    errors = []
    for wav in wavs:
        z, codes = codec.latents(wav), codec.encode(wav)
        found = (codec.quantizer.decode(codes), codec.restore(codes))
        errors.append([(z - latents).square().mean().item() for latents in found])
    before, after = torch.tensor(errors).mean(0)
    assert after < 0.95 * before


@torch.no_grad()
def test_silence_is_not_restored():
    codec = add_restorer(fitted())
    silence = torch.zeros(1, 1, 6400)
    codec.quantizer.stages[0].codebook[3] = codec.latents(silence)[0, 10]  # as k-means finds it in real recordings
    for stage in codec.quantizer.stages[1:]:
        stage.codebook[0] = 0.0
    clips = list(Crops([Tones()], 4800, False).whole(20, 1))
    fit_restorer(codec, [torch.cat([wav, silence], 2) for wav in clips])
    codes, gate = codec.encode(silence), codec.restorer.gate
    assert gate[3] < 1e-6 and float(gate.median()) == 1.0
    assert torch.allclose(codec.restore(codes)[0, 10], codec.latents(silence)[0, 10], atol=1e-4)


def test_the_fits_k_means_does_not_give_its_entries_to_a_few_odd_vectors():
    torch.manual_seed(0)
    crowd, odd = torch.randn(2000, 6), 30 * torch.randn(60, 6)
    even, plain = VectorQuantizer(64, 6), VectorQuantizer(64, 6)
    _set_codebook(even, torch.cat([crowd, odd]), torch.Generator().manual_seed(0))
    plain.start(torch.cat([crowd, odd]), torch.Generator().manual_seed(0))
    used = [len(one.encode(crowd).unique()) for one in (even, plain)]
    assert used[0] > 45 and used[0] > used[1]


def test_too_little_sound_for_a_codebook_is_told(tmp_path):
    codec = Codec(replace(TINY, codebook_size=4096))
    with pytest.raises(MinigenError, match="at least 4096 frames, got 37"):
        fit_codec(codec, lambda: [Tones().load(0)[..., :11840]], torch.Generator(), 100)


def test_whole_clips_are_the_same_in_every_pass_and_change_their_speed_after_the_first_round():
    crops = Crops([Tones()], 4800, False)
    one, other = list(crops.whole(30, 3)), list(crops.whole(30, 3))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert {wav.shape[-1] for wav in one[:24]} == {12000} and len({wav.shape[-1] for wav in one[24:]}) == 6
    assert all(0.55 < one[i].abs().max() <= 1 for i in range(1, 30, 2))


class Broken(Tones):
    """Every third clip is silent, every fourth too short."""

    def load(self, i):
        if i % 3 == 0:
            raise AudioError("silent", f"clip {i} is silent")
        return super().load(i)[..., : 1000 if i % 4 == 0 else None]


def test_silent_and_short_clips_are_passed_over_and_counted(capsys):
    crops = Crops([Broken(), Tones()], 4800, progress=True)
    assert crops.skipped == {"silent": 8, "too short": 4}
    assert "clips passed over: 8 silent, 4 too short" in capsys.readouterr().out
    assert [len(source) for source in crops.sources] == [12, 24]
    with pytest.raises(MinigenError, match="no clip of 18750 samples or more .*silent"):
        Crops([Broken()], 15000, progress=False)


def test_what_the_training_needs_is_said_first(tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_Training, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_codec(tmp_path, {"tones": Tones()}, RECIPE, TINY)
    said = capsys.readouterr().out
    assert "training the codec: " in said
    assert all(word in said for word in ("parameters", "of memory", "of disk", "about 2.0 h"))


# --- beside other codecs, and on real recordings


def test_the_times_of_real_time_are_seconds_of_sound_a_second():
    assert times_real_time(Codec(TINY).eval(), [noise()] * 3) > 5


def test_restoring_keeps_most_of_the_speed():
    """66 times real time without it, so at least 40 with it; in processor time, which a busy machine changes little."""
    torch.manual_seed(0)
    plain, wav, times = Codec().eval(), 0.1 * torch.randn(1, 1, 64000), []
    for codec in (plain, add_restorer(plain)):
        runs = []
        for _ in range(5):
            began = time.process_time()
            codec.decode(codec.encode(wav))
            runs.append(time.process_time() - began)
        times.append(min(runs))
    assert times[1] < 66 / 40 * times[0]


@pytest.mark.skipif(not has_opus(), reason="opusenc and opusdec (Debian: opus-tools) are not installed")
def test_opus_is_nearer_to_the_sound_the_more_bits_it_has():
    wavs = [Tones().load(9), noise()]
    assert distances(through_opus(12), wavs)[0] < distances(through_opus(6), wavs)[0]


def test_the_recordings_of_a_fold_are_heard_in_training_or_held_back(tmp_path):
    (tmp_path / "001 - Dog bark").mkdir()
    for name in ("1-7-A.ogg", "3-9-B.ogg", "4-5-A.ogg", "readme.txt"):
        (tmp_path / "001 - Dog bark" / name).write_bytes(b"")
    assert [path.name for path in Recordings(tmp_path).files] == ["1-7-A.ogg", "3-9-B.ogg"]
    assert [path.name for path in Recordings(tmp_path, held_out=True).files] == ["4-5-A.ogg"]
    with pytest.raises(MinigenError, match="fold-source-take"):
        Recordings(tmp_path / "nothing")
