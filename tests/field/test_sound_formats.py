"""Everything that the sound library writes, as a clip among good ones: read whole, or skipped, counted and named."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.audio import AudioError, check_audio, load_audio
from minigen.corpus import read_corpus
from minigen.corpus.corpus import first_sound
from minigen.engine.errors import MinigenError
from minigen.engine.sound_file import XING, read_frames

KINDS = [(form, subtype) for form in soundfile.available_formats() for subtype in soundfile.available_subtypes(form)]
COARSE = {"VOX_ADPCM", "DPCM_8", "PCM_S8", "PCM_U8", "G723_24", "G721_32", "G723_40", "GSM610", "NMS_ADPCM_16",
          "NMS_ADPCM_24", "NMS_ADPCM_32", "ULAW", "ALAW", "DPCM_16", "IMA_ADPCM", "MS_ADPCM", "OPUS", "VORBIS",
          "MPEG_LAYER_III"}  # fmt: skip


def chirp(rate: int, seconds: float = 3.0) -> np.ndarray:
    """A tone that rises from 300 to 900 Hz: no two parts of it are the same."""
    t = np.arange(round(rate * seconds)) / rate
    return 0.4 * np.sin(2 * np.pi * (300 * t + 100 * t**2))


def written(form: str, subtype: str, folder: Path) -> tuple[int, Path] | None:
    """A chirp of 3 s in this format, at the first rate that it keeps: (rate, file); None where it cannot be written."""
    path = folder / f"odd.{form.lower()}"
    for rate in (16000, 8000, 44100, 48000):
        try:
            soundfile.write(path, chirp(rate), rate, subtype, format=form)
            if form == "RAW" or soundfile.info(path).samplerate == rate:
                return rate, path
        except soundfile.LibsndfileError:
            continue
    return None


def vbr_mp3(seconds: float = 8.0, rate: int = 44100) -> bytes:
    """Loud noise for 0.5 s, then a quiet chirp: the first frames have ten times the bit rate of the others."""
    wave, file = 0.2 * chirp(rate, seconds), io.BytesIO()
    wave[: rate // 2] = np.random.default_rng(0).uniform(-0.4, 0.4, rate // 2)
    how = {"bitrate_mode": "VARIABLE", "compression_level": 0.5}
    with soundfile.SoundFile(file, "w", rate, 1, "MPEG_LAYER_III", format="MP3", **how) as out:
        out.write(wave)
    return file.getvalue()


def without_xing(mp3: bytes) -> bytes:
    """The same mp3 as a radio recorder leaves it: its first frame, which states the length, is missing."""
    second = mp3.index(mp3[:2], 2)
    assert XING.search(mp3[:second])
    return mp3[second:]


def unknown_length(flac: bytes) -> bytes:
    """A flac as it comes out of a pipe: neither its number of samples nor their digest is known."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + bytes(16) + flac[42:]


@pytest.mark.parametrize(("form", "subtype"), KINDS)
def test_every_format_is_read_whole_or_skipped_and_named(form, subtype, tmp_path):
    """Six good clips and one of the format, over three splits: no run ends, and every clip is accounted for."""
    (tmp_path / "dog").mkdir()
    made = written(form, subtype, tmp_path / "dog")
    if made is None:
        pytest.skip("the sound library does not write it")
    for number in range(6):
        soundfile.write(tmp_path / "dog" / f"good {number}.wav", chirp(16000), 16000)
    read, skipped = {}, []
    for split in ("train", "validation", "test"):
        try:
            corpus = read_corpus(tmp_path, split, seconds=3.0)
        except MinigenError as error:  # the odd one is alone in this split
            skipped.append(str(error))
            continue
        for index, clip in enumerate(corpus.clips):
            try:
                read[clip.audiocap_id] = corpus.load(index)
            except AudioError as error:
                skipped.append(str(error))
        skipped += [file for file, _ in corpus.report.skipped]
    if form == "RAW":  # samples without a header: nothing says what they are
        assert len(read) == 6 and len(skipped) == 1
        return
    assert len(read) == 7 and not skipped
    odd, good = read["odd"], read["good 0"]
    away = min(float((odd - good.roll(shift, -1)).abs().mean()) for shift in range(-60, 61))
    assert odd.shape == (1, 1, 48000) and away < (0.06 if subtype in COARSE else 0.01)


@pytest.mark.parametrize(("form", "subtype"), KINDS)
def test_a_part_of_any_format_is_that_part_of_the_whole(form, subtype, tmp_path):
    made = written(form, subtype, tmp_path)
    if made is None or form == "RAW":
        pytest.skip("the sound library does not write or read it")
    rate, path = made
    whole = read_frames(path, 0, check_audio(path)[1])
    assert 3 * rate <= len(whole) <= 3.1 * rate
    for first in (rate // 3, 2 * rate):
        assert np.array_equal(read_frames(path, first, rate // 2), whole[first : first + rate // 2])


@pytest.mark.parametrize("seconds", [2.0, 8.0, 20.0])
def test_an_mp3_that_states_no_length_is_decoded_to_its_end(seconds, tmp_path):
    whole = vbr_mp3(seconds)
    path = tmp_path / "a.mp3"
    path.write_bytes(without_xing(whole))
    rate, frames = check_audio(path)
    assert seconds <= frames / rate < seconds + 0.1
    wave, stated = load_audio(path, rate), load_audio(whole, rate)
    assert wave.shape[-1] == frames and stated.shape[-1] == round(seconds * rate)
    delay = frames - stated.shape[-1]  # the encoder's silence before and after, which the missing frame tells to cut
    away = [float((wave[..., shift:][..., : stated.shape[-1] - delay] - stated[..., : -delay or None]).abs().mean())
            for shift in range(900, 1200)]  # fmt: skip
    assert min(away) < 0.01
    tail = load_audio(path, rate, start=seconds - 0.5, seconds=0.4)
    assert torch.equal(tail, wave[..., round((seconds - 0.5) * rate) :][..., : tail.shape[-1]])


def test_two_mp3s_that_were_joined_are_both_read():
    one = vbr_mp3()
    rate, frames = check_audio(one + one)
    assert frames / rate == pytest.approx(16, abs=0.2) and load_audio(one + one).shape[-1] >= 16 * 16000


@pytest.mark.parametrize("suffix", ["mp3", "wav", "flac"])
def test_what_macos_leaves_beside_a_file_does_not_hide_it(suffix, tmp_path):
    soundfile.write(tmp_path / f"a.{suffix}", chirp(16000), 16000)
    alone = load_audio(tmp_path / f"a.{suffix}")
    (tmp_path / f"._a.{suffix}").write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(4080))
    assert torch.equal(load_audio(tmp_path / f"a.{suffix}"), alone)


def test_a_tag_before_an_mp3_does_not_hide_its_length():
    tag = b"ID3\x04\0\0\0\0\x0a\0" + bytes(1280)  # 10 * 128 bytes of cover picture
    assert check_audio(tag + vbr_mp3()) == check_audio(vbr_mp3()) == (44100, 8 * 44100)
    assert check_audio(tag + without_xing(vbr_mp3())) == check_audio(without_xing(vbr_mp3()))


@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000])
def test_an_mp3_that_begins_late_is_heard_from_its_first_sound(rate, tmp_path):
    wave = chirp(rate, 8.0)
    wave[: 2 * rate] = 0
    soundfile.write(tmp_path / "a.mp3", wave, rate, "MPEG_LAYER_III", format="MP3")
    start = first_sound(str(tmp_path / "a.mp3"), 4.0)
    assert 1.8 <= start <= 2.0
    heard, whole = load_audio(tmp_path / "a.mp3", rate, start, 4.0), load_audio(tmp_path / "a.mp3", rate)
    assert torch.equal(heard, whole[..., round(start * rate) :][..., : heard.shape[-1]])


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    known = written("FLAC", "PCM_16", tmp_path)[1].read_bytes()
    assert check_audio(unknown_length(known)) == check_audio(known) == (16000, 48000)
    for asked in ({}, {"seconds": 2.0}, {"seconds": 4.0}, {"start": 1.5}, {"start": 2.9, "seconds": 1.0}):
        assert torch.equal(load_audio(unknown_length(known), **asked), load_audio(known, **asked))


@settings(max_examples=40, deadline=None)
@given(first=st.integers(0, 50_000), count=st.integers(0, 50_000), size=st.integers(1, 50_000))
def test_frames_are_those_asked_for_wherever_blocks_end(first, count, size):
    """Formats that are decoded from their start give the same frames as one that seeks."""
    wave = np.random.default_rng(size).uniform(-0.5, 0.5, (size, 2))
    seekable, piped = io.BytesIO(), io.BytesIO()
    for file in (seekable, piped):
        soundfile.write(file, wave, 16000, "PCM_16", format="FLAC")
    expected = soundfile.read(io.BytesIO(seekable.getvalue()), dtype="float32")[0][first : first + count]
    assert np.array_equal(read_frames(unknown_length(piped.getvalue()), first, count), expected)


@pytest.mark.parametrize("suffix", [".m4a", ".webm"])
def test_a_format_that_needs_ffmpeg_is_said_to_need_it(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\0\0\0\x20ftypM4A ")
    with pytest.raises(AudioError, match=f"{suffix} needs FFmpeg"):
        load_audio(path)
