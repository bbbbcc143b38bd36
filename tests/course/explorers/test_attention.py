"""The attention explorer: its weights are those the layers used, and every control changes what is shown."""

from types import SimpleNamespace

import pytest
import torch

from minigen.course.explorers.attention import MEAN, AttentionExplorer, attention_map, attention_weights, clip_weights
from minigen.engine.errors import MinigenError
from minigen.lm import AudioLM, AudioLMConfig, shift_right

WORDS = {"rain falls": ["▁rain", "▁falls", "</s>"], "a dog": ["▁a", "▁dog", "</s>", "▁x", "▁y"]}
WAV = torch.sin(torch.arange(6400) * 0.1).view(1, 1, -1) * 0.5  # 20 frames


@pytest.fixture(scope="module")
def lm():
    torch.manual_seed(0)
    lm = AudioLM(AudioLMConfig(4, 16, 32, 2, 4, 64, 8)).eval()
    with torch.no_grad():
        for layer in lm.layers:  # at the start all scores are near 0, and all weights equal
            layer.cross_attention.query.weight.mul_(40)
            layer.cross_attention.key.weight.mul_(40)
    return lm


@pytest.fixture(scope="module")
def tta(lm):
    """The parts of a pipeline, without training: any caption has random states of its own, any sound random codes."""

    def encode(wav):
        draw = torch.Generator().manual_seed(int(1000 * wav.abs().sum()))
        return torch.randint(16, (1, 4, wav.shape[-1] // 320), generator=draw)

    class Encoder:
        def __call__(self, captions):
            draw = torch.Generator().manual_seed(len(captions[0]))
            words = len(WORDS[captions[0]])
            return torch.randn(1, words, 8, generator=draw), torch.ones(1, words, dtype=torch.bool)

        def tokens(self, caption):
            return WORDS[caption]

    codec = SimpleNamespace(encode=encode, sample_rate=16000)
    return SimpleNamespace(lm=lm, codec=codec, encoder=Encoder())


def batch():
    draw = torch.Generator().manual_seed(1)
    sequence = torch.randint(17, (2, 4, 6), generator=draw)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    return sequence, torch.randn(2, 5, 8, generator=draw), mask


def test_the_weights_are_those_that_the_layers_used(lm):
    """Values mixed with them, through the output matrix, are what each layer's cross-attention gave out."""
    sequence, memory, mask = batch()
    given = []
    hooks = [
        layer.cross_attention.out.register_forward_hook(lambda _m, _x, out: given.append(out)) for layer in lm.layers
    ]
    with torch.no_grad():
        lm(sequence, memory, mask)
        weights = attention_weights(lm, sequence, memory, mask)
        text = lm.memory_projection(memory)
        for hook in hooks:
            hook.remove()
        for i, layer in enumerate(lm.layers):
            values = layer.cross_attention.value(text).unflatten(-1, (4, -1)).transpose(1, 2)
            mixed = layer.cross_attention.out((weights[i] @ values).transpose(1, 2).flatten(2))
            torch.testing.assert_close(mixed, given[i], rtol=1e-4, atol=1e-6)


def test_words_share_one_and_padding_gets_nothing(lm):
    weights = attention_weights(lm, *batch())
    assert weights.shape == (2, 2, 4, 6, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4, 6))
    assert (weights[:, 1, ..., 3:] == 0).all() and (weights[:, 0] > 0).all()
    assert weights.std(-1).max() > 0.05  # not all equal


def test_looking_leaves_no_hook_behind(lm):
    attention_weights(lm, *batch())
    assert not any(module._forward_hooks for module in lm.modules())
    with pytest.raises(MinigenError):
        attention_weights(lm, batch()[0] + 100, *batch()[1:])
    assert not any(module._forward_hooks for module in lm.modules())


def test_a_row_a_frame_of_codebook_0(tta):
    weights, tokens = clip_weights(tta, "rain falls", WAV)
    assert weights.shape == (2, 4, 20, 3) and tokens == WORDS["rain falls"]
    codes = tta.codec.encode(WAV)
    sequence = torch.full((1, 4, 23), 16)
    for k in range(4):
        sequence[0, k, k : k + 20] = codes[0, k]
    whole = attention_weights(tta.lm, shift_right(sequence, 16), *tta.encoder(["rain falls"]))
    torch.testing.assert_close(weights, whole[:, 0, :, :20])


def test_every_control_changes_the_picture_and_what_is_said(tta):
    explorer = AttentionExplorer(tta, {"rain falls": WAV, "a dog": -0.5 * WAV})
    shown = [(bytes(explorer.image.value), explorer.said.value)]
    for control, value in ((explorer.layer, 1), (explorer.head, 3), (explorer.head, MEAN), (explorer.clip, "a dog")):
        control.value = value
        shown.append((bytes(explorer.image.value), explorer.said.value))
    assert len({png for png, _ in shown}) == 5 and all(png.startswith(b"\x89PNG") for png, _ in shown)
    assert len({text for _, text in shown}) == 5 and "mean of all heads" in shown[-1][1]
    assert "</s>" not in " ".join(text for _, text in shown)  # a token cannot break the page


def test_the_map_shows_the_weights_with_words_and_seconds(tta):
    weights, tokens = clip_weights(tta, "rain falls", WAV)
    above, below = attention_map(weights[1, 2], tokens, WAV, 16000, "rain falls").axes[:2]
    assert torch.equal(torch.from_numpy(below.images[0].get_array().data), weights[1, 2].T)
    assert [label.get_text() for label in below.get_yticklabels()] == tokens
    assert below.get_xlim() == (0, 0.4) and below.get_xlabel().endswith("(s)") and above.get_ylabel().endswith("(Hz)")


def test_what_does_not_fit_is_refused(tta):
    with pytest.raises(MinigenError, match="no clips"):
        AttentionExplorer(tta, {})
    with pytest.raises(MinigenError, match="for 3 tokens"):
        attention_map(torch.ones(5, 4), WORDS["rain falls"], WAV, 16000)
