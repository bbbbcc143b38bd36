"""The drawing of the chain highlights the pieces it is told to."""

import base64
from xml.dom import minidom

import pytest

from minigen.display.chain import BOXES, PIECES, chain, chain_svg
from minigen.engine.errors import MinigenError


def test_the_chain_lights_exactly_the_pieces_named():
    dark, lit = chain_svg(), chain_svg(("codec", "text"))
    assert dark.count("#0072b2") == 0
    assert lit.count("#0072b2") == 3  # the codec has two boxes
    minidom.parseString(lit)
    assert base64.b64encode(lit.encode()).decode() in chain("codec", "text").data


def test_no_two_boxes_of_the_chain_overlap():
    places = [box[2:6] for box in BOXES]
    for i, (x, y, width, height) in enumerate(places):
        for left, top, wide, high in places[:i]:
            assert x >= left + wide or left >= x + width or y >= top + high or top >= y + height


def test_an_unknown_piece_is_named_with_the_known_ones():
    with pytest.raises(MinigenError, match="decoder.*" + PIECES[0]):
        chain("decoder")
