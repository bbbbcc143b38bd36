"""Reading, writing, resampling and picturing sound."""

import math
import os

import numpy as np
import pytest
import soundfile
import torch

from minigen.audio import (
    AudioError,
    check_audio,
    fit_length,
    load_audio,
    log_mel,
    peak_normalize,
    resample,
    save_audio,
)
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically


def tone(frequency=440.0, rate=16000, seconds=0.5, level=0.5):
    return level * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def frequency_of(wav, rate=16000):
    spectrum = torch.fft.rfft(wav.flatten() * torch.hann_window(wav.numel()))
    return float(spectrum.abs().argmax()) * rate / wav.numel()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_sample_format_gives_the_same_sound(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", tone(), 16000, subtype)
    wav = load_audio(tmp_path / "a.wav")
    assert wav.shape == (1, 1, 8000) and wav.dtype == torch.float32
    assert np.abs(wav.flatten().numpy() - tone()).max() < (0.02 if subtype in ("PCM_U8", "ULAW") else 1e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 44101])
def test_a_tone_keeps_its_pitch_and_level_at_any_rate(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(1000.0, rate), rate, "FLOAT")
    wav = load_audio(tmp_path / "a.wav")
    assert abs(wav.shape[-1] - 8000) <= 1
    assert abs(frequency_of(wav) - 1000) < 4
    assert wav[..., 2000:6000].abs().max() == pytest.approx(0.5, abs=0.01)


def test_what_the_new_rate_cannot_carry_is_gone(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(20000.0, 96000), 96000, "FLOAT")
    assert load_audio(tmp_path / "a.wav")[..., 500:-500].abs().max() < 0.01


@pytest.mark.parametrize("asked", [
    {"start": math.nan}, {"seconds": math.inf}, {"sample_rate": 0}, {"sample_rate": 16000.0},
])  # fmt: skip
def test_a_part_or_a_rate_that_is_no_number_is_refused(tmp_path, asked):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    with pytest.raises(MinigenError, match="nan|inf|sample rate"):
        load_audio(tmp_path / "a.wav", **asked)


def test_channels_are_averaged(tmp_path):
    channels = np.random.default_rng(0).uniform(-1, 1, (1000, 8))
    soundfile.write(tmp_path / "a.wav", channels, 16000, "FLOAT")
    assert np.allclose(load_audio(tmp_path / "a.wav").flatten(), channels.mean(1), atol=1e-6)


def test_one_sample_is_a_recording(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.5]), 16000)
    assert load_audio(tmp_path / "a.wav").shape == (1, 1, 1)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_usual_containers_are_read_from_disk_and_from_bytes(tmp_path, suffix):
    path = tmp_path / f"le chien à midi.{suffix}"
    soundfile.write(path, tone(), 16000)
    wav = load_audio(path)
    assert abs(frequency_of(wav) - 440) < 4
    assert torch.equal(wav, load_audio(path.read_bytes()))


def test_a_part_is_the_part_of_the_whole(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    whole, part = load_audio(tmp_path / "a.flac"), load_audio(tmp_path / "a.flac", start=0.25, seconds=0.5)
    assert torch.equal(part, whole[..., 4000:12000])
    assert load_audio(tmp_path / "a.flac", start=0.75, seconds=9).shape[-1] == 4000


def test_a_recording_beyond_full_scale_is_scaled_back(tmp_path):
    soundfile.write(tmp_path / "a.wav", 8 * tone(), 16000, "FLOAT")
    assert load_audio(tmp_path / "a.wav").abs().max() == pytest.approx(1.0, abs=1e-6)


def write_broken(folder):
    """One file for each way a recording can be broken: {reason: paths}."""
    soundfile.write(folder / "good.wav", tone(), 16000)
    good = (folder / "good.wav").read_bytes()
    (folder / "zero bytes.wav").write_bytes(b"")
    (folder / "no samples.wav").write_bytes(good[:40] + bytes(4))
    (folder / "half.wav").write_bytes(good[: len(good) // 2])
    (folder / "header only.wav").write_bytes(good[:44])
    soundfile.write(folder / "whole.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    (folder / "half.flac").write_bytes((folder / "whole.flac").read_bytes()[:9000])
    (folder / "text.wav").write_text("this is not sound\n" * 20)
    (folder / "folder.wav").mkdir()
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan, 0.2] * 100), 16000, "FLOAT")
    soundfile.write(folder / "huge.wav", np.array([1e300] * 100), 16000, "DOUBLE")
    return {
        "missing": ["nowhere.wav"],
        "empty": ["zero bytes.wav", "no samples.wav"],
        "truncated": ["half.wav", "header only.wav", "half.flac"],
        "not audio": ["text.wav"],
        "not a file": ["folder.wav"],
        "not finite": ["nan.wav", "huge.wav"],
    }


def test_a_broken_recording_says_why(tmp_path):
    for reason, names in write_broken(tmp_path).items():
        for name in names:
            with pytest.raises(AudioError, match=name) as caught:
                load_audio(tmp_path / name)
            assert caught.value.reason == reason, name


def test_the_header_alone_tells_most_breakage(tmp_path):
    broken = write_broken(tmp_path)
    assert check_audio(tmp_path / "good.wav") == (16000, 8000)
    for name in ["nowhere.wav", *broken["empty"], *broken["truncated"][:2], "text.wav", "folder.wav"]:
        with pytest.raises(AudioError):
            check_audio(tmp_path / name)


def test_a_wav_from_a_pipe_that_never_knew_its_length_is_whole(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    assert load_audio(bytes(data)).shape[-1] == 8000


def test_nothing_can_be_read_after_the_end_or_for_no_time(tmp_path):
    save_audio(tmp_path / "a.wav", torch.zeros(1600))
    with pytest.raises(AudioError, match=r"lasts 0\.10 s"):
        load_audio(tmp_path / "a.wav", start=5.0)
    for seconds in (0, -1, math.nan):
        with pytest.raises(MinigenError, match="more than 0 s"):
            load_audio(tmp_path / "a.wav", seconds=seconds)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("shape", [(800,), (1, 800), (1, 1, 800)])
def test_what_is_saved_is_what_is_loaded(tmp_path, suffix, shape):
    wav = torch.rand(shape) * 1.8 - 0.9
    path = tmp_path / "new folder" / f"a.{suffix}"
    save_audio(path, wav)
    assert soundfile.info(path).subtype == "PCM_16"
    assert (load_audio(path).flatten() - wav.flatten()).abs().max() < 1e-4
    assert os.listdir(path.parent) == [path.name]


def test_a_wave_beyond_full_scale_is_clipped_not_wrapped(tmp_path):
    save_audio(tmp_path / "a.wav", torch.tensor([2.0, -2.0]))
    assert load_audio(tmp_path / "a.wav").flatten().tolist() == pytest.approx([1, -1], abs=1e-4)


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.wav").mkdir()
    for name, wav in [
        ("file/a.wav", torch.zeros(10)),
        ("folder.wav", torch.zeros(10)),
        ("a" * 300 + ".wav", torch.zeros(10)),
        ("a.mp3", torch.zeros(10)),
        ("a", torch.zeros(10)),
        ("a.wav", torch.tensor([0.0, math.nan])),
        ("a.wav", torch.zeros(2, 1, 10)),
        ("a.wav", torch.zeros(0)),
        ("a.wav", torch.tensor(0.5)),
        ("a.wav", torch.tensor([0, 1000, -32768], dtype=torch.int16)),
    ]:
        with pytest.raises(MinigenError):
            save_audio(tmp_path / name, wav)
    for rate in (0, 1_000_000, 16000.0):
        with pytest.raises(MinigenError, match="sample rate is"):
            save_audio(tmp_path / "a.flac", torch.zeros(10), rate)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.wav"]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a.txt", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(MinigenError, match="No space left"):
        write_atomically(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_resampling_equals_torchaudio_at_usual_rates_and_is_nothing_at_the_same():
    from torchaudio.functional import resample as official

    wav = torch.randn(2, 1, 1001)
    assert resample(wav, 16000, 16000) is wav
    for rate in (8000, 22050, 24000, 32000, 44100, 48000):
        assert torch.equal(resample(wav, rate, 16000), official(wav, rate, 16000))


def test_there_and_back_again_is_the_same_sound():
    wav = torch.from_numpy(tone(500.0)).float()
    back = resample(resample(wav, 16000, 48000), 48000, 16000)
    assert (back - wav)[200:-200].abs().max() < 1e-3


def test_length_is_fitted_at_the_end():
    wav = torch.arange(1.0, 6.0).view(1, 1, 5)
    assert fit_length(wav, 3).flatten().tolist() == [1, 2, 3]
    assert fit_length(wav, 7).flatten().tolist() == [1, 2, 3, 4, 5, 0, 0]
    assert torch.equal(fit_length(wav, 5), wav)


def test_each_clip_of_a_batch_gets_the_same_peak_and_silence_stays_silent():
    wav = torch.stack([0.1 * torch.randn(1, 100), torch.randn(1, 100), torch.zeros(1, 100)])
    peaks = peak_normalize(wav, 0.8).abs().amax((1, 2))
    assert peaks.tolist() == pytest.approx([0.8, 0.8, 0.0], abs=1e-6)


def test_log_mel_equals_a_transform_written_out():
    wav = torch.randn(1, 1, 4000)
    padded = torch.nn.functional.pad(wav, (512, 512), mode="reflect")[0, 0]
    power = torch.stack([torch.fft.rfft(padded[i : i + 1024] * torch.hann_window(1024)).abs() ** 2
                         for i in range(0, 4001, 320)])  # fmt: skip
    mel = torch.linspace(0, 2595 * math.log10(1 + 8000 / 700), 66, dtype=torch.float64)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hertz = torch.arange(513) * 16000 / 1024
    up = (hertz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - hertz[:, None]) / (edges[2:] - edges[1:-1])
    expected = (power.double() @ torch.minimum(up, down).clamp(min=0)).clamp(min=1e-5).log10().T
    assert log_mel(wav).shape == (1, 64, 13)
    assert (log_mel(wav)[0] - expected).abs().max() < 1e-3


def test_log_mel_shows_silence_as_its_floor_a_tone_in_its_band_and_a_short_clip_at_all():
    assert torch.all(log_mel(torch.zeros(2, 1, 3200)) == -5) and log_mel(torch.zeros(2, 1, 3200)).shape == (2, 64, 11)
    low, high = (log_mel(torch.from_numpy(tone(f)).float().view(1, 1, -1)).mean(2).argmax() for f in (200, 4000))
    assert low < 10 < 40 < high
    assert log_mel(torch.ones(1, 1, 3)).shape == (1, 64, 4)
