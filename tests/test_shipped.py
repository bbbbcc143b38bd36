"""The shipped weights do what they are for, on clips that nothing was trained on (test split of another seed)."""

import pytest
import torch

from minigen.codec import load_codec
from minigen.corpus.synthesis.builtin import describe_clip
from minigen.corpus.synthesis.scenes import render_scene
from minigen.evaluation.clap import load_judge
from minigen.generate import TextToAudio
from minigen.lm import shift_right
from minigen.loss import cross_entropy
from minigen.metrics import clap_score
from minigen.patterns import DelayPattern
from minigen.recipes.codec.card import distances, entries_used, lines_of, through
from minigen.recipes.codec.data import Recordings
from minigen.recipes.codec.losses import mel_distance

CLIPS = 16


@pytest.fixture(scope="module")
def clips() -> tuple[list[str], torch.Tensor]:
    """Captions, and waveforms [16, 1, 64000]."""
    rows = [describe_clip(91, "test", index, 4.0) for index in range(CLIPS)]
    wavs = [torch.from_numpy(render_scene(scene, rng, 64000)) for scene, _, rng in rows]
    return [caption for _, caption, _ in rows], torch.stack(wavs)[:, None]


def test_the_codec_stays_near_the_sound_keeps_its_grain_and_uses_its_codebooks(clips):
    codec, wavs = load_codec(), list(clips[1].split(1))
    near, grain = distances(through(codec), wavs)
    assert near < 0.25
    assert 0.75 < grain < 1.15
    assert all(share > 0.15 for share in entries_used(codec, wavs))  # of 3200 frames


def test_the_codec_on_real_recordings_that_it_never_heard(esc10):
    codec, kinds = load_codec(), {kind: wavs[:3] for kind, wavs in Recordings(esc10, held_out=True).by_kind().items()}
    found = {kind: distances(through(codec), wavs) for kind, wavs in kinds.items()}
    assert sum(near for near, _ in found.values()) / len(found) < 0.19
    grainy = ("rain", "sea waves", "fire crackling", "baby cry", "rooster")
    assert all(0.88 < found[kind][1] < 1.1 for kind in grainy)
    assert all(lines_of(codec, kinds[kind]) < 3 for kind in ("rain", "sea waves"))  # the first codec: 16 dB


def test_a_tone_stays_a_tone_within_a_semitone():
    codec, t = load_codec(), torch.arange(32000) / 16000
    for hertz in (440.0, 1000.0, 2500.0):
        wav = codec.decode(codec.encode(0.3 * torch.sin(2 * torch.pi * hertz * t)[None, None]))[0, 0, 8000:24000]
        power = torch.fft.rfft(wav * torch.hann_window(16000)).abs().square()  # bins of 1 Hz
        assert abs(int(power[50:].argmax()) + 50 - hertz) < 0.06 * hertz
        assert power[round(0.9 * hertz) : round(1.1 * hertz)].sum() > 0.75 * power.sum()


def test_each_codebook_of_the_codec_adds_detail(clips):
    codec, wav = load_codec(), clips[1]
    codes = codec.encode(wav)
    distances = []
    for k in range(1, 5):
        with torch.no_grad():
            distances.append(float(mel_distance(wav, codec.synthesize(codec.quantizer.decode(codes[:, :k])))))
    assert distances == sorted(distances, reverse=True)


@pytest.mark.parametrize("name", ["mini-dropout", "mini-regularized"])
def test_a_clips_own_caption_explains_its_codes_better_than_another_or_none(clips, name):
    tta, (captions, wavs) = TextToAudio.from_pretrained(name), clips
    V = tta.codec.codebook_size
    sequence = DelayPattern(tta.lm.config.delays).apply(tta.codec.encode(wavs), V)

    def loss(texts):
        states, mask = tta.encoder(texts) if texts else (None, None)
        with torch.no_grad():
            return cross_entropy(tta.lm(shift_right(sequence, V), states, mask), sequence)

    own, none = loss(captions), loss(None)
    assert own < loss(captions[1:] + captions[:1]) - 0.01
    assert own < none - 0.01


def test_what_is_generated_fits_its_caption_better_than_another(clips):
    tta, judge, captions = TextToAudio.from_pretrained("mini"), load_judge(), clips[0]
    heard = judge.embed_audio(tta.generate(captions, seconds=4.0, guidance=3.0, seed=0))
    said = judge.embed_text(captions)
    assert clap_score(heard, said) > clap_score(heard, said.roll(1, 0)) + 0.15
