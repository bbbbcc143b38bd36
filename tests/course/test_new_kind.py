"""The new kind of sound: whistles that differ, that glide, and that an unchanged judge tells from the corpus."""

import torch

from minigen.corpus.clip import KINDS
from minigen.course.new_kind import CAPTIONS, slide_whistles


def test_whistles_repeat_for_a_seed_and_differ_from_each_other():
    one, again = slide_whistles(2, seed=1), slide_whistles(2, seed=1)
    assert one.shape == (2, 1, 64000) and one.dtype == torch.float32 and torch.equal(one, again)
    assert not torch.equal(one[0], one[1]) and not torch.equal(one, slide_whistles(2, seed=2))
    assert torch.allclose(one.abs().amax(-1), torch.tensor(0.5))


def test_the_pitch_of_a_whistle_glides_over_an_octave_or_more():
    window = torch.hann_window(1024)
    spectra = torch.stft(slide_whistles(4, seed=0)[:, 0], 1024, 256, window=window, return_complex=True).abs()
    for spectrum in spectra:  # [bins, frames]
        loud = spectrum.amax(0) > 0.3 * spectrum.max()
        hertz = spectrum.argmax(0)[loud] * 16000 / 1024
        assert hertz.min() < 900 and hertz.max() > 1300


def test_the_corpus_has_no_such_kind():
    assert not any("whistle" in kind for kind in KINDS) and all("slide whistle" in caption for caption in CAPTIONS)
