"""The new kinds of sound: recordings that differ, whistles that glide, and kinds and captions that the corpus lacks."""

import pytest
import torch

from minigen.corpus.clip import KINDS
from minigen.course.new_kind import CAPTIONS, NEW_KINDS, recordings, slide_whistles


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_recordings_repeat_for_a_seed_and_differ_from_each_other(kind):
    one, again = recordings(kind, 2, seed=1), recordings(kind, 2, seed=1)
    assert one.shape == (2, 1, 64000) and one.dtype == torch.float32 and torch.equal(one, again)
    assert not torch.equal(one[0], one[1]) and not torch.equal(one, recordings(kind, 2, seed=2))
    assert torch.allclose(one.abs().amax(-1), torch.tensor(0.5))
    assert one[..., :32000].square().mean().sqrt() > 0.005, "the first half is not silent"


def test_the_pitch_of_a_whistle_glides_over_an_octave_or_more():
    window = torch.hann_window(1024)
    spectra = torch.stft(slide_whistles(4, seed=0)[:, 0], 1024, 256, window=window, return_complex=True).abs()
    for spectrum in spectra:  # [bins, frames]
        loud = spectrum.amax(0) > 0.3 * spectrum.max()
        hertz = spectrum.argmax(0)[loud] * 16000 / 1024
        assert hertz.min() < 900 and hertz.max() > 1300


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_the_corpus_has_no_such_kind_and_asks_for_it_in_other_words(kind):
    captions, asked = NEW_KINDS[kind].captions, NEW_KINDS[kind].asked
    assert not any(kind.replace(" ", "_") in known for known in KINDS)
    assert all(kind.split()[0] in caption for caption in captions + asked)
    assert not set(captions) & set(asked)


def test_the_captions_are_those_of_the_slide_whistle():
    assert CAPTIONS == NEW_KINDS["slide whistle"].captions
