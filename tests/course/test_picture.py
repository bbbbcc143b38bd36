"""The README's picture shows the chain for one caption."""

import numpy as np

from minigen.course.picture import SHOWN, draw
from minigen.generate import TextToAudio


def test_the_picture_shows_states_sequence_codes_and_sound_of_the_same_draw():
    tta = TextToAudio.from_pretrained("mini")
    figure = draw(tta, "a dog barks", seconds=1.0)
    words, columns, grid, sound = figure.axes
    sequence, codes = (axes.images[0].get_array() for axes in (columns, grid))
    assert sequence.shape == codes.shape == (tta.codec.num_codebooks, SHOWN)
    for stream, delay in enumerate(tta.lm.config.delays):  # stream k is its codes, delays[k] columns late
        assert sequence.mask[stream, :delay].all() and not sequence.mask[stream, delay:].any()
        assert np.array_equal(sequence[stream, delay:], codes[stream, : SHOWN - delay])
    assert words.images[0].get_array().shape[0] == words.images[0].get_array().shape[1]
    assert sound.get_xlabel() == "time (s)" and sound.images[0].get_array().ndim == 2
