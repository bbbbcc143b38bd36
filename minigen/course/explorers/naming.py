"""Name the unlabelled sound (notebook 16): the same caption by several models, whose names are hidden.

    sounds ─► order of a seed ─► A, B, C, …   a choice for each letter ─► how many are right, then the names

`Blind` holds the hidden order. `NamingExplorer` is the widget; a dictionary does the same without one.
"""

from collections.abc import Mapping
from html import escape

import ipywidgets
import numpy as np
from torch import Tensor

from minigen.display.players import audio_tag
from minigen.engine.errors import MinigenError

OPEN = "?"


class Blind:
    """Sounds under letters instead of names.

    Args:
        sounds: name -> waveform [1, 1, samples].
        seed: of the order.

    Raises:
        MinigenError: fewer than two sounds, or more than the alphabet has letters.
    """

    def __init__(self, sounds: Mapping[str, Tensor], seed: int = 0):
        if not 2 <= len(sounds) <= 26:
            raise MinigenError(f"{len(sounds)} sounds. Give 2 to 26 of them, by name.")
        names = list(sounds)
        order = np.random.default_rng(seed).permutation(len(names)).tolist()
        self.key = {chr(ord("A") + place): names[row] for place, row in enumerate(order)}
        self.sounds = {letter: sounds[name] for letter, name in self.key.items()}

    def answer(self, named: Mapping[str, str]) -> str:
        """Sentence on an answer, letter -> name: how many are right, and the key, once every letter has a name.

        Raises:
            MinigenError: a letter or a name that does not exist.
        """
        for letter, name in named.items():
            if letter not in self.key or (name not in (..., OPEN) and name not in self.key.values()):
                raise MinigenError(
                    f"{letter}: {name!r}. The letters are {', '.join(self.key)}, the names {', '.join(self._names())}."
                )
        left = [letter for letter in self.key if named.get(letter, ...) in (..., OPEN)]
        if left:
            return f"not named yet: {', '.join(left)}. The names: {', '.join(self._names())}."
        right = sum(named[letter] == name for letter, name in self.key.items())
        told = ", ".join(f"{letter} {name}" for letter, name in self.key.items())
        return f"{right} of {len(self.key)} right; one is right by chance, on average. {told}."

    def _names(self) -> list[str]:
        return sorted(self.key.values())


class NamingExplorer(ipywidgets.VBox):
    """Widget with a player and a choice of names for each letter, and a button that shows the key.

    blind: the sounds. sample_rate: of the waveforms.
    """

    def __init__(self, blind: Blind, sample_rate: int):
        self.blind = blind
        names = [OPEN, *sorted(blind.key.values())]
        self.choices = {letter: ipywidgets.Dropdown(options=names, description=letter) for letter in blind.sounds}
        self.done = ipywidgets.Button(description="show the names")
        self.said = ipywidgets.HTML()
        self.done.on_click(self.show)
        rows = [
            ipywidgets.HBox([ipywidgets.HTML(audio_tag(wav, sample_rate)), self.choices[letter]])
            for letter, wav in blind.sounds.items()
        ]
        super().__init__([*rows, self.done, self.said])

    def show(self, _button=None) -> None:
        """Judge the answer."""
        named = {letter: choice.value for letter, choice in self.choices.items()}
        self.said.value = escape(self.blind.answer(named))
