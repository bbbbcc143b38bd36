"""The codec: nearest entries, residual stages, restoring, the spectrum, agreement with the official ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from minigen.codec import (
    Codec,
    CodecConfig,
    ResidualVectorQuantizer,
    Spectrum,
    VectorQuantizer,
    load_codec,
    lock_to_peaks,
    white_noise,
)
from minigen.engine.errors import MinigenError
from minigen.interop.encodec import EncodecCodec
from minigen.patterns import DelayPattern
from minigen.quantizer import check_codes
from minigen.recipes.codec.losses import frame_lines

TINY = CodecConfig(
    hop=80, parts=2, n_fft=160, long_window=256, short_window=64, short_bands=4, width=16, blocks=1, latent=8,
    num_codebooks=3, codebook_size=16,
)  # fmt: skip
RESTORING = replace(TINY, restorer=True, restore_reach=2, lock_phases=True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quantizer(codebooks=3, size=12, width=5) -> ResidualVectorQuantizer:
    return ResidualVectorQuantizer(codebooks, size, width)


# --- one codebook


def test_a_vector_becomes_its_nearest_entry():
    vq, x = VectorQuantizer(12, 5), torch.randn(4, 7, 5)
    codes = vq.encode(x)
    for b in range(4):
        for t in range(7):
            distances = [float((x[b, t] - entry).square().sum()) for entry in vq.codebook]
            assert int(codes[b, t]) == int(np.argmin(distances))
    assert torch.equal(vq.decode(codes)[2, 3], vq.codebook[codes[2, 3]])


def test_an_entry_is_the_moving_average_of_the_vectors_that_chose_it():
    vq, x = VectorQuantizer(4, 3, decay=0.9, dead_below=0.0), torch.randn(50, 3)
    counts, sums, codes = vq.counts.clone(), vq.sums.clone(), vq.encode(x)
    vq.update(x, codes, generator())
    for v in range(4):
        mine = x[codes == v]
        expected_count = 0.9 * counts[v] + 0.1 * len(mine)
        expected_sum = 0.9 * sums[v] + 0.1 * mine.sum(0)
        assert torch.allclose(vq.codebook[v], expected_sum / expected_count, atol=1e-6)


def test_k_means_start_beats_a_random_start_and_uses_every_entry():
    x = torch.randn(10, 6)[torch.randint(10, (2000,))] + 0.05 * torch.randn(2000, 6)
    vq = VectorQuantizer(32, 6)
    before = (x - vq.decode(vq.encode(x))).square().mean()
    vq.start(x, generator())
    after = (x - vq.decode(vq.encode(x))).square().mean()
    assert after < 0.05 * before
    assert len(vq.encode(x).unique()) > 24


def test_many_vectors_are_compared_in_parts_as_one_by_one():
    vq, x = VectorQuantizer(12, 5), torch.randn(20000, 5)
    assert torch.equal(vq.encode(x)[-50:], vq.encode(x[-50:]))


def test_k_means_refuses_fewer_vectors_than_entries():
    with pytest.raises(MinigenError, match="at least 8 vectors, got 5"):
        VectorQuantizer(8, 3).start(torch.randn(5, 3), generator())


def test_a_dead_entry_is_replaced_by_a_vector_of_the_batch():
    vq, x = VectorQuantizer(8, 3, dead_below=0.5), torch.randn(100, 3)
    vq.codebook[5] = vq.sums[5] = 1e6  # nothing will ever be nearest to it
    for _ in range(100):
        vq.update(x, vq.encode(x), generator())
    assert vq.codebook.abs().max() < 10
    assert len(vq.encode(x).unique()) == 8


# --- residual stages


def test_each_stage_quantises_what_the_stages_before_left_over():
    rvq, x = quantizer(), torch.randn(2, 9, 5)
    residual, expected = x, []
    for stage in rvq.stages:
        index = torch.cdist(residual, stage.codebook[None]).argmin(-1)
        residual = residual - stage.codebook[index]
        expected.append(index)
    assert torch.equal(rvq.encode(x), torch.stack(expected, 1))
    assert torch.allclose(x - rvq.decode(rvq.encode(x)), residual, atol=1e-5)


def test_codes_and_sums_are_those_of_the_encodec_package():
    from encodec.quantization import ResidualVectorQuantizer as Official

    mine, official = quantizer(4, 32, 6), Official(dimension=6, n_q=4, bins=32, kmeans_init=False).eval()
    for stage, layer in zip(mine.stages, official.vq.layers, strict=True):
        layer._codebook.embed.copy_(stage.codebook)
    x = torch.randn(2, 11, 6)
    codes = official.vq.encode(x.transpose(1, 2)).transpose(0, 1)
    assert torch.equal(mine.encode(x), codes)
    assert torch.allclose(mine.decode(codes), official.decode(codes.transpose(0, 1)).transpose(1, 2), atol=1e-5)


def test_codes_are_those_of_transformers():
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecResidualVectorQuantizer

    config = EncodecConfig(codebook_size=32, codebook_dim=6, hidden_size=6, target_bandwidths=[6.0])
    official, mine = EncodecResidualVectorQuantizer(config), quantizer(4, 32, 6)
    for stage, layer in zip(mine.stages, official.layers, strict=False):
        layer.codebook.embed.copy_(stage.codebook)
    x = torch.randn(2, 11, 6)
    codes = official.encode(x.transpose(1, 2))[:4].transpose(0, 1)
    assert torch.equal(mine.encode(x), codes)


def test_the_output_passes_its_gradient_straight_to_the_input():
    rvq, x = quantizer(), torch.randn(2, 9, 5, requires_grad=True)
    weights = torch.randn(2, 9, 5)
    (rvq(x)[0] * weights).sum().backward()
    assert torch.allclose(x.grad, weights)


def test_the_commitment_of_every_stage_reaches_the_input():
    rvq, x = quantizer(), torch.randn(2, 9, 5, requires_grad=True)
    rvq(x)[2].backward()
    residual, expected = x.detach(), torch.zeros_like(x)
    for stage in rvq.stages:
        residual = residual - stage.decode(stage.encode(residual))
        expected += 2 * residual / residual.numel() / 3
    assert torch.allclose(x.grad, expected, atol=1e-7)


def test_more_codebooks_never_describe_the_training_vectors_worse():
    x, rvq = torch.randn(4, 500, 5), quantizer(4, 16, 5)
    rvq.start(x.flatten(0, 1), generator())
    codes = rvq.encode(x)
    errors = [float((x - rvq.decode(codes[:, :k])).square().mean()) for k in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)


# --- spectrum


def test_the_inverse_spectrum_gives_the_waveform_back():
    spectrum, wav = Spectrum(64, 16), torch.randn(2, 320)
    assert spectrum(wav).shape == (2, 20, 33)
    assert torch.allclose(spectrum.inverse(spectrum(wav)), wav, atol=1e-5)


def test_the_spectrum_is_that_of_a_loop_over_frames():
    spectrum, wav = Spectrum(64, 16), torch.randn(1, 320)
    padded = np.pad(wav[0].numpy(), 24)
    for f in range(20):
        expected = np.fft.rfft(padded[16 * f : 16 * f + 64] * np.hanning(65)[:64])
        assert np.allclose(spectrum(wav)[0, f].numpy(), expected, atol=1e-4)


# --- materials: tones, clicks, noise


def silent_materials(codec: Codec, frames: int) -> list[torch.Tensor]:
    bins = codec.config.n_fft // 2 + 1
    return [torch.zeros(1, frames, bins) for _ in range(5)]


@pytest.mark.parametrize("hertz", [437.0, 2000.0, 3333.0])
def test_a_tone_whose_phase_runs_on_is_one_line(hertz):
    codec = Codec(CodecConfig(width=16, blocks=1))
    materials = silent_materials(codec, 100)
    _, _, tone, turn, _ = materials
    centre, step = round(hertz / 25), codec.spectrum.step
    for b, size in ((centre - 1, 80.0), (centre, 160.0), (centre + 1, 80.0)):  # the lobe of a Hann window
        tone[..., b], turn[..., b] = size, 2 * torch.pi * (hertz - 25 * b) * step / 16000
    wav = codec.sound(materials, torch.zeros(1, 16000), torch.zeros(1, 100))[0, 0]
    spectrum = torch.fft.rfft(wav * torch.hann_window(16000)).abs()
    peak = int(spectrum.argmax())
    assert abs(peak - hertz) <= 1  # bins of 1 Hz
    assert spectrum[peak - 3 : peak + 4].square().sum() > 0.95 * spectrum.square().sum()


def test_a_click_lies_where_its_phase_says():
    codec = Codec(CodecConfig(width=16, blocks=1))
    materials = silent_materials(codec, 20)
    click, phase = materials[:2]
    delay = torch.arange(codec.config.n_fft // 2 + 1) * 2 * torch.pi / codec.config.n_fft
    click[0, 10], phase[0, 10] = 1.0, -400 * delay
    wav = codec.sound(materials, torch.zeros(1, 3200), torch.zeros(1, 20))[0, 0]
    first = 10 * codec.spectrum.step - (codec.config.n_fft - codec.spectrum.step) // 2
    assert int(wav.abs().argmax()) == first + 400


def test_noise_is_shaped_by_its_magnitudes():
    codec = Codec(CodecConfig(width=16, blocks=1))
    materials = silent_materials(codec, 100)
    materials[4][..., 80:160] = 1.0  # 2 to 4 kHz
    noise = torch.randn(1, 16000, generator=generator())
    power = torch.fft.rfft(codec.sound(materials, noise, torch.zeros(1, 100))[0, 0]).abs().square()
    assert power[2000:4000].sum() > 0.97 * power.sum()


def test_clicks_in_equal_frames_do_not_hum():
    codec = Codec(CodecConfig(width=16, blocks=1))
    materials = silent_materials(codec, 400)
    materials[0][...], materials[1][...] = 1.0, torch.rand(codec.config.n_fft // 2 + 1, generator=generator()) * 6
    walk = white_noise(400)[None]
    steady, drifting = (codec.sound(materials, torch.zeros(1, 64000), x) for x in (0 * walk, walk))
    assert frame_lines(steady, 50.0) > 15 and frame_lines(drifting, 50.0) < 10


def test_the_three_shares_of_a_magnitude_add_up_to_its_power():
    codec, latents = Codec(TINY), torch.randn(1, 6, 8)
    click, _, tone, _, hiss = codec.materials(latents)
    outline = codec._parts(codec.outline(latents.transpose(1, 2)).transpose(1, 2), 1)[0]
    correction = codec._parts(codec.leave(codec.decoder(codec.from_latent(latents))), 6)[0]
    power = click.square() + tone.square() + hiss.square()
    assert torch.allclose(power.log() / 2, outline + correction, atol=0.05)  # the bend at full scale is far away


@pytest.mark.parametrize("hertz", [996.0, 1000.0, 1008.0, 1012.0])
def test_the_slope_of_a_sines_magnitude_is_its_turn(hertz):
    codec = Codec(CodecConfig(width=16, blocks=1))
    spectrum = codec.spectrum(torch.sin(2 * torch.pi * hertz * torch.arange(16000) / 16000)[None])[:, 40:60]
    found = codec._slope(spectrum.abs().log())[..., 40]  # the bin of 1000 Hz
    true = 2 * torch.pi * (hertz - 1000) * codec.spectrum.step / 16000
    assert torch.allclose(found, torch.tensor(true), atol=0.03)


def test_the_encoder_hears_a_line_where_it_is_and_a_click_when_it_is():
    codec = Codec(CodecConfig(width=16, blocks=1))
    sine = codec.features(torch.sin(2 * torch.pi * 2000 * torch.arange(16000) / 16000)[None, None])[0, 25]
    assert int((sine[:513] / codec.features.weight).argmax()) == 128  # 2000 Hz in bins of 15.6 Hz
    click = torch.zeros(1, 1, 16000)
    click[..., 10 * 320 + 280] = 1.0  # in the last quarter of frame 10
    assert int(codec.features(click)[0, 10, 513:].view(4, 16).mean(1).argmax()) == 3


def test_silence_and_what_is_near_it_are_one():
    codec = Codec(TINY)
    features = codec.features(torch.cat([torch.zeros(1, 1, 800), torch.full((1, 1, 800), 1e-7)]))
    assert torch.equal(features[0], features[1])


def test_the_endless_noise_has_a_beginning_that_does_not_depend_on_its_length():
    assert torch.equal(white_noise(100), white_noise(40000)[:100])
    assert abs(white_noise(40000).std() - 1) < 0.02
    assert not torch.equal(white_noise(40000)[:16000], white_noise(40000)[16000:32000])


# --- phases locked to the peaks of the spectrum


def test_every_bin_takes_the_phase_of_the_peak_near_it():
    rng = generator(3)
    size, steps = torch.rand(2, 7, 15, generator=rng), torch.randn(2, 7, 15, generator=rng)
    found = lock_to_peaks(size, steps)
    for b in range(2):
        phase = [0.0] * 15
        for t in range(7):
            loud = size[b, t].tolist()
            climb = [max(range(max(0, i - 2), min(15, i + 3)), key=loud.__getitem__) for i in range(15)]
            moved = [phase[i] + float(steps[b, t, i]) for i in range(15)]
            phase = [moved[climb[climb[i]]] for i in range(15)]
            assert torch.allclose(found[b, t], torch.tensor(phase), atol=1e-5)


def test_a_line_with_wrong_turns_beside_its_peak_does_not_flutter():
    codec, locking = (Codec(CodecConfig(width=16, blocks=1, lock_phases=lock)) for lock in (False, True))
    materials = silent_materials(codec, 200)
    _, _, tone, turn, _ = materials
    for b, size, error in ((39, 80.0, 0.2), (40, 160.0, 0.0), (41, 80.0, -0.3)):  # 1000 Hz, radians per frame
        tone[..., b], turn[..., b] = size, error
    still = torch.zeros(1, 200)
    levels = [one.sound(materials, torch.zeros(1, 32000), still)[0, 0, 1600:-1600].unfold(0, 160, 160).std(1)
              for one in (codec, locking)]  # fmt: skip
    flutter = [float(level.std() / level.mean()) for level in levels]
    assert flutter[0] > 0.2 and flutter[1] < 0.02


# --- the codec


def test_a_second_becomes_frame_rate_frames():
    codec = Codec(CodecConfig(width=16, blocks=1))
    assert (codec.sample_rate, codec.frame_rate, codec.num_codebooks, codec.codebook_size) == (16000, 50.0, 4, 1024)
    codes = codec.encode(0.1 * torch.randn(2, 1, 16000))
    assert codes.shape == (2, 4, 50) and codes.dtype == torch.int64
    assert codec.decode(codes).shape == (2, 1, 16000)


def test_a_rest_of_a_frame_is_a_frame():
    codec = Codec(TINY).eval()
    assert codec.encode(torch.randn(1, 1, 81)).shape == (1, 3, 2)


def test_a_batch_is_encoded_as_one_at_a_time():
    codec, wav = Codec(TINY).eval(), 0.3 * torch.randn(3, 1, 800)
    codes = codec.encode(wav)
    assert all(torch.equal(codes[i : i + 1], codec.encode(wav[i : i + 1])) for i in range(3))
    assert torch.allclose(codec.decode(codes)[1:2], codec.decode(codes[1:2]), atol=1e-6)


def test_decoding_is_synthesis_of_restored_latents():
    codec = noisy_restorer()
    codes = codec.encode(0.3 * torch.randn(2, 1, 800))
    assert torch.equal(codec.decode(codes), codec.synthesize(codec.restore(codes)).clamp(-1, 1))
    q = codec.quantizer.decode(codes)
    assert torch.equal(codec.restore(codes), codec.restorer(q, codes[:, 0]))
    assert not torch.allclose(codec.restore(codes), q)


def test_a_codec_without_a_restorer_decodes_the_sums_of_its_entries():
    codec = Codec(TINY).eval()
    codes = codec.encode(0.3 * torch.randn(2, 1, 800))
    assert torch.equal(codec.restore(codes), codec.quantizer.decode(codes))


def test_a_restorer_leaves_the_codes_and_the_latents_as_they_are():
    torch.manual_seed(0)
    plain, restoring, wav = Codec(TINY).eval(), noisy_restorer(), 0.3 * torch.randn(2, 1, 800)
    restoring.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(restoring.encode(wav), plain.encode(wav))
    assert torch.equal(restoring.latents(wav), plain.latents(wav))


def test_an_untrained_restorer_changes_nothing():
    codec = Codec(RESTORING).eval()
    codes = codec.encode(0.3 * torch.randn(1, 1, 800))
    assert torch.equal(codec.restore(codes), codec.quantizer.decode(codes))


def test_fewer_codebooks_are_not_restored():
    codec = noisy_restorer()
    codes = codec.encode(0.3 * torch.randn(1, 1, 800))[:, :2]
    assert torch.equal(codec.restore(codes), codec.quantizer.decode(codes))


def test_a_restored_frame_depends_on_the_frames_on_both_sides():
    codec, q = noisy_restorer(), torch.randn(1, 30, 8, requires_grad=True)
    codec.restorer(q, torch.zeros(1, 30, dtype=torch.long))[0, 15].sum().backward()
    reached = q.grad[0].abs().sum(1) > 0
    assert reached.nonzero().flatten().tolist() == [13, 14, 15, 16, 17]


def test_a_frame_whose_first_code_closes_the_gate_stays_as_it_is():
    codec, q = noisy_restorer(), torch.randn(1, 4, 8)
    codec.restorer.gate[5] = 0.0
    restored = codec.restorer(q, torch.tensor([[1, 5, 2, 5]]))
    assert [torch.equal(restored[0, t], q[0, t]) for t in range(4)] == [False, True, False, True]


def noisy_restorer() -> Codec:
    codec = Codec(RESTORING).eval()
    torch.nn.init.normal_(codec.restorer.linear.weight, std=0.1)
    return codec


@pytest.mark.parametrize("config", [TINY, RESTORING])
def test_training_reaches_every_parameter(config):
    codec = Codec(config)
    quantized, _, commitment = codec.quantizer(codec.latents(0.3 * torch.randn(2, 1, 800)), generator())
    if codec.restorer is not None:
        quantized = codec.restorer(quantized, torch.zeros(2, 10, dtype=torch.long))
    materials = codec.materials(quantized)
    sound = codec.sound(materials, torch.randn(2, 800), torch.randn(2, 20))
    (sound.square().mean() + materials[3].square().mean() + commitment).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in codec.parameters())


@pytest.mark.parametrize("config", [TINY, RESTORING])
def test_a_saved_codec_is_the_same_codec(tmp_path, config):
    codec, wav = Codec(config).eval(), 0.3 * torch.randn(1, 1, 800)
    codec.save_pretrained(tmp_path)
    loaded = load_codec(tmp_path)
    assert loaded.config == config
    loaded.save_pretrained(tmp_path / "again")
    again = load_codec(tmp_path / "again")
    assert torch.equal(loaded.encode(wav), again.encode(wav))
    assert torch.equal(loaded.decode(loaded.encode(wav)), again.decode(loaded.encode(wav)))


def test_a_config_from_before_restorers_is_a_codec_without_one(tmp_path):
    Codec(TINY).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    added = ("restorer", "restore_reach", "lock_phases")
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in added}))
    codec = load_codec(tmp_path)
    assert codec.restorer is None and not codec.config.lock_phases


@pytest.mark.parametrize("change", [{"width": 32}, {"depth": 3}, {"restorer": True}])
def test_weights_that_do_not_fit_give_one_clear_line(tmp_path, change):
    Codec(TINY).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(MinigenError, match="do not fit their config"):
        load_codec(tmp_path)


@pytest.mark.parametrize("content", [b"", None])
def test_damaged_or_missing_weights_give_one_clear_line(tmp_path, content):
    Codec(TINY).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(MinigenError, match="do not fit their config"):
        Codec.from_pretrained(tmp_path)


@pytest.mark.parametrize("shape", [(16000,), (1, 16000), (1, 2, 16000), (1, 1, 0), (0, 1, 16000)])
def test_a_waveform_of_another_shape_is_refused(shape):
    with pytest.raises(MinigenError, match=r"\[B, 1, samples\]"):
        Codec(TINY).encode(torch.zeros(shape))


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_waveform_with_samples_that_are_no_numbers_is_refused(wrong):
    with pytest.raises(MinigenError, match="no numbers"):
        Codec(TINY).encode(torch.tensor([0.0, wrong]).expand(1, 1, 2))


@pytest.mark.parametrize("codes, says", [
    (torch.zeros(1, TINY.num_codebooks + 1, 4, dtype=torch.int64), f"up to {TINY.num_codebooks} codebooks"),
    (torch.zeros(1, TINY.num_codebooks, 4), "int64, got torch.float32"),
])  # fmt: skip
def test_codes_of_too_many_codebooks_or_of_another_type_are_refused(codes, says):
    with pytest.raises(MinigenError, match=says):
        Codec(TINY).decode(codes)


WHOLE = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("size", [16, 256, 1024])
def test_codes_may_be_kept_in_any_whole_type_and_are_compared_in_one_that_holds_both(kind, size):
    """256 and 1024 are 0 in 8 bits: compared there, no code would lie below them."""
    check_codes(torch.full((1, 4, 2), min(size, 100) - 1, dtype=kind), 4, size)
    codec = Codec(TINY)
    assert torch.equal(codec.decode(torch.ones(1, 3, 4, dtype=kind)), codec.decode(torch.ones(1, 3, 4).long()))
    pattern = DelayPattern((0, 1, 2, 3))
    sequence = pattern.apply(torch.ones(1, 4, 3, dtype=kind), fill=size)
    assert torch.equal(sequence.long(), pattern.apply(torch.ones(1, 4, 3).long(), fill=size))
    with pytest.raises(MinigenError, match="0..2, got 3..3"):
        check_codes(torch.full((1, 4, 2), 3, dtype=kind), 4, 3)


@pytest.mark.parametrize("code", [-1, 16])
def test_a_code_outside_the_codebook_is_refused(code):
    with pytest.raises(MinigenError, match=r"0\.\.15"):
        Codec(TINY).decode(torch.full((1, 3, 4), code))


def test_an_unknown_codec_gives_one_clear_line():
    with pytest.raises(MinigenError, match="no codec weights named 'mini-nothing'"):
        load_codec("mini-nothing")


def test_a_folder_does_not_hide_the_shipped_codec_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Codec(TINY).save_pretrained("mini")
    Codec(TINY).save_pretrained("mini-own")
    assert load_codec("mini").config != TINY
    assert load_codec("./mini").config == load_codec("mini-own").config == TINY


# --- the official one behind the same interface


def official(**changes):
    from transformers import EncodecConfig, EncodecModel

    sizes = {"num_filters": 4, "hidden_size": 8, "codebook_size": 16, "upsampling_ratios": [4, 2], "sampling_rate": 800}
    return EncodecModel(EncodecConfig(**{**sizes, "target_bandwidths": [1.6], "num_lstm_layers": 1, **changes})).eval()


def test_an_official_encodec_from_disk_gives_its_own_codes_and_waveform(tmp_path):
    model, wav = official(), 0.3 * torch.randn(2, 1, 800)
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_()
    model.save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    with torch.no_grad():
        codes = model.encode(wav, bandwidth=1.6).audio_codes
        expected = model.decode(codes, [None]).audio_values
    assert torch.equal(codec.encode(wav), codes[0])
    assert torch.equal(codec.decode(codes[0]), expected)
    assert (codec.sample_rate, codec.num_codebooks, codec.codebook_size) == (800, codes.shape[2], 16)


def test_a_stereo_encodec_is_refused():
    with pytest.raises(MinigenError, match="2 channels"):
        EncodecCodec(official(audio_channels=2))


def test_an_official_codec_that_cannot_be_fetched_gives_one_clear_line():
    with pytest.raises(MinigenError, match="not on disk and could not be fetched"):
        load_codec("facebook/encodec_24khz")
