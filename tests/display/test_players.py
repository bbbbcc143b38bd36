"""Players hold the sound itself."""

import pytest
import torch
from sounds import sound_in

from minigen.display.players import player, players
from minigen.engine.errors import MinigenError

SINE = torch.sin(torch.arange(1600) * 0.1).view(1, 1, -1) * 0.5


def test_a_player_holds_the_sound_to_sixteen_bits_at_its_rate():
    samples, rate = sound_in(player(SINE, 8000).data)
    assert rate == 8000
    assert (torch.from_numpy(samples) - SINE.flatten()).abs().max() < 1 / 32000


def test_a_title_cannot_break_the_page():
    assert "<b>" not in player(SINE, title="<b>").data
    assert "<b>" not in players({"<b>": SINE}).data


def test_players_show_a_picture_beside_every_sound():
    html = players({"one": SINE, "two": -SINE}).data
    assert html.count("<audio") == html.count("data:image/png") == 2
    assert 'alt="spectrogram: two"' in html


@pytest.mark.parametrize(
    "wav", [torch.zeros(2, 1, 100), torch.zeros(1, 1, 0), torch.tensor(0.5), SINE / 0, (1000 * SINE).short()]
)
def test_what_is_no_single_sound_is_refused(wav):
    with pytest.raises(MinigenError):
        player(wav)
