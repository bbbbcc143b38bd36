"""The blind naming of sounds: the key stays hidden until every letter has a name, and every control does its work."""

import pytest
import torch
from sounds import sound_in

from minigen.course.explorers.naming import OPEN, Blind, NamingExplorer
from minigen.engine.errors import MinigenError

NAMES = ("mini", "mini-masked", "mini-discrete", "mini-style")


@pytest.fixture
def blind() -> Blind:
    return Blind({name: torch.full((1, 1, 800), 0.1 * (row + 1)) for row, name in enumerate(NAMES)}, seed=1)


def test_every_sound_has_a_letter_and_the_order_is_that_of_the_seed(blind):
    assert list(blind.key) == list("ABCD") and sorted(blind.key.values()) == sorted(NAMES)
    assert all(blind.sounds[letter].max() == 0.1 * (NAMES.index(name) + 1) for letter, name in blind.key.items())
    orders = {tuple(Blind(dict.fromkeys(NAMES, torch.zeros(1)), seed).key.values()) for seed in range(8)}
    assert len(orders) > 3


def test_the_key_is_told_only_when_every_letter_has_a_name(blind):
    said = blind.answer({"A": ..., "B": OPEN, "C": blind.key["C"]})
    assert said.startswith("not named yet: A, B, D.") and "right" not in said
    assert said.endswith("The names: mini, mini-discrete, mini-masked, mini-style.")
    assert blind.answer(blind.key).startswith("4 of 4 right")
    assert blind.answer(dict.fromkeys(blind.key, "mini")).startswith("1 of 4 right")
    assert f"A {blind.key['A']}" in blind.answer(blind.key)


def test_a_letter_or_name_that_does_not_exist_is_refused(blind):
    with pytest.raises(MinigenError, match="The letters are A, B, C, D, the names mini"):
        blind.answer({"E": "mini"})
    with pytest.raises(MinigenError, match="A: 'maxi'"):
        blind.answer({"A": "maxi"})


@pytest.mark.parametrize("count", [1, 27])
def test_one_sound_or_more_than_letters_are_refused(count):
    with pytest.raises(MinigenError, match=f"{count} sounds"):
        Blind({str(row): torch.zeros(1) for row in range(count)})


def test_the_widget_plays_hides_and_judges(blind):
    test = NamingExplorer(blind, 16000)
    assert [choice.value for choice in test.choices.values()] == [OPEN] * 4 and not test.said.value
    players = [row.children[0].value for row in test.children[:4]]
    assert all(len(sound_in(player)[0]) == 800 for player in players)
    assert not any(name in player for name in NAMES for player in players)
    test.done.click()
    assert test.said.value.startswith("not named yet: A, B, C, D")
    for letter, choice in test.choices.items():
        choice.value = blind.key[letter]
    test.done.click()
    assert test.said.value.startswith("4 of 4 right")
