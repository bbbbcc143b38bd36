"""The denoiser: PyTorch's layers with the same weights, both directions, text, time, and a language model's start."""

import pytest
import torch
from torch import nn

from minigen.engine.errors import MinigenError
from minigen.generators.denoiser import Denoiser, DenoiserConfig
from minigen.lm import AudioLM, AudioLMConfig

SMALL = DenoiserConfig(num_codebooks=2, codebook_size=10, components=5, width=16, layers=2, heads=2, ffn=24,
                       memory_width=12)  # fmt: skip


def denoiser(**changes) -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(DenoiserConfig(**{**vars(SMALL), **changes})).eval()
    for parameter in model.parameters():  # the zeros of the start would hide mistakes
        nn.init.normal_(parameter, std=0.2)
    return model


def inputs(model: Denoiser, frames: int = 7, rows: int = 3) -> dict:
    draw = torch.Generator().manual_seed(1)
    config = model.config
    if config.kind == "codes":
        state = torch.randint(0, config.codebook_size + 1, (rows, config.num_codebooks, frames), generator=draw)
    else:
        state = torch.randn(rows, frames, config.components, generator=draw)
    given = {"state": state, "memory": torch.randn(rows, 4, config.memory_width, generator=draw)}
    given["memory_mask"] = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    if config.timed:
        given["time"] = torch.tensor([0.1, 0.5, 1.0])
    return given


def official_layer(layer, width: int, heads: int, ffn: int) -> nn.TransformerDecoderLayer:
    """PyTorch's layer with the same weights; our linear layers have no biases, so its biases are 0."""
    theirs = nn.TransformerDecoderLayer(width, heads, ffn, 0.0, "gelu", norm_first=True, batch_first=True).eval()
    for parameter in theirs.parameters():
        nn.init.zeros_(parameter)
    pairs = ((theirs.self_attn, layer.self_attention), (theirs.multihead_attn, layer.cross_attention))
    for attention, ours in pairs:
        attention.in_proj_weight.data = torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]).detach()
        attention.out_proj.weight.data = ours.out.weight.detach()
    theirs.linear1.weight.data, theirs.linear2.weight.data = layer.ffn_in.weight.data, layer.ffn_out.weight.data
    norms = ((theirs.norm1, layer.self_norm), (theirs.norm2, layer.cross_norm), (theirs.norm3, layer.ffn_norm))
    for norm, ours in norms:
        norm.load_state_dict(ours.state_dict())
    return theirs


@torch.no_grad()
def test_the_layers_are_those_of_pytorch_without_a_causal_mask():
    model = denoiser()
    given = inputs(model)
    x = sum(table(given["state"][:, k]) for k, table in enumerate(model.embeddings))
    from minigen.transformer import sinusoids

    x, memory = x + sinusoids(7, 16), model.memory_projection(given["memory"])
    for layer in model.layers:
        x = official_layer(layer, 16, 2, 24)(x, memory, memory_key_padding_mask=~given["memory_mask"])
    torch.testing.assert_close(model.hidden_states(**given), model.norm(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["codes", "latents"])
def test_the_shape_of_the_answer(kind):
    model = denoiser(kind=kind)
    assert model(**inputs(model)).shape == ((3, 2, 7, 10) if kind == "codes" else (3, 7, 5))


@pytest.mark.parametrize("timed", [False, True])
def test_every_frame_sees_every_frame_by_gradient(timed):
    model = denoiser(kind="latents", timed=timed)
    given = inputs(model)
    given["state"].requires_grad_()
    model(**given)[:, 3].sum().backward()
    assert (given["state"].grad.abs().sum((0, 2)) > 0).all()


def test_a_window_hides_the_frames_outside_it():
    model = denoiser(kind="latents", layers=1)
    given = inputs(model)
    given["state"].requires_grad_()
    place = torch.arange(7)
    model(**given, attend=(place[:, None] - place).abs() <= 2)[:, 3].sum().backward()
    assert (given["state"].grad.abs().sum((0, 2)) > 0).tolist() == [False, True, True, True, True, True, False]


@torch.no_grad()
def test_padding_words_never_change_an_answer_and_a_row_of_padding_has_no_text():
    model = denoiser()
    given = inputs(model)
    other = {**given, "memory": given["memory"].masked_fill(~given["memory_mask"][..., None], 9.0)}
    torch.testing.assert_close(model(**given), model(**other))
    nothing = {**given, "memory_mask": torch.zeros_like(given["memory_mask"])}
    torch.testing.assert_close(model(**nothing), model(given["state"]), atol=1e-6, rtol=0)


@torch.no_grad()
def test_clips_of_a_batch_do_not_meet():
    model = denoiser(timed=True)
    given = inputs(model)
    alone = [model(**{name: value[row : row + 1] for name, value in given.items()}) for row in range(3)]
    torch.testing.assert_close(model(**given), torch.cat(alone), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_noise_level_changes_the_answer_of_a_timed_model():
    model = denoiser(timed=True)
    given = inputs(model)
    assert not torch.allclose(model(**given), model(**{**given, "time": torch.tensor([0.2, 0.5, 1.0])}))


@torch.no_grad()
def test_from_a_language_model_only_the_causal_mask_is_gone():
    torch.manual_seed(0)
    lm = AudioLM(AudioLMConfig(num_codebooks=2, codebook_size=10, width=16, layers=2, heads=2, ffn=24, memory_width=12,
                               delays=(0, 1))).eval()  # fmt: skip
    plain, timed = (Denoiser.from_language_model(lm, timed).eval() for timed in (False, True))
    given = inputs(plain)
    torch.testing.assert_close(plain(**given), timed(**given, time=torch.rand(3)))
    one = {name: value[..., :1] if name == "state" else value for name, value in given.items()}
    ours = lm(one["state"], one["memory"], one["memory_mask"])  # with one frame there is nothing to hide
    torch.testing.assert_close(plain(**one), ours, atol=1e-6, rtol=0)


@torch.no_grad()
def test_for_diffusion_a_denoiser_gets_the_noise_level_and_answers_as_before():
    plain = denoiser()
    timed = plain.for_diffusion("mask_uniform").eval()
    assert timed.config.timed and timed.config.process == "mask_uniform"
    torch.testing.assert_close(plain(**inputs(plain)), timed(**inputs(timed)))
    again = timed.for_diffusion("mask").eval()
    assert torch.equal(timed(**inputs(timed)), again(**inputs(again)))


def test_weight_decay_pulls_a_layer_to_the_layer_without_time():
    modulation = denoiser(timed=True).time
    for parameter in modulation.parameters():
        parameter.data.zero_()
    expected = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    assert torch.equal(modulation(torch.rand(1))[0, :, 0, 0, 0], expected)


@torch.no_grad()
def test_latents_start_at_zero():
    model = Denoiser(DenoiserConfig(**{**vars(SMALL), "kind": "latents", "timed": True}))
    assert not model(**inputs(model)).any()


@pytest.mark.parametrize("kind, timed", [("codes", False), ("latents", True)])
def test_saved_and_loaded_it_gives_the_same(tmp_path, kind, timed):
    model = denoiser(kind=kind, timed=timed)
    model.save_pretrained(tmp_path, torch.float32)
    loaded = Denoiser.from_pretrained(tmp_path)
    assert loaded.config == model.config and not loaded.training
    assert torch.equal(loaded(**inputs(model)), model(**inputs(model)))


@pytest.mark.parametrize(
    "changes, says",
    [({"kind": "waves"}, "kind"), ({"width": 15}, "width"), ({"heads": 3}, "heads"), ({"layers": 0}, "layers")],
)
def test_impossible_sizes_are_refused(changes, says):
    with pytest.raises(MinigenError, match=says):
        DenoiserConfig(**{**vars(SMALL), **changes})


def test_inputs_that_do_not_fit_are_refused():
    model, timed = denoiser(), denoiser(timed=True)
    given = inputs(model)
    for wrong, says in (
        ({"state": given["state"][:, :1]}, "Give integer codes"),
        ({"state": given["state"].float()}, "Give integer codes"),
        ({"state": given["state"] + 5}, "Give 0 to 10"),
        ({"memory": given["memory"][:2]}, "for 3 clips"),
        ({"memory": given["memory"][..., :4]}, r"Give \[3, N, "),
        ({"memory_mask": given["memory_mask"].float()}, "memory_mask is torch.float32"),
        ({"memory_mask": given["memory_mask"][:, :1]}, r"memory_mask is torch.bool \[3, 1\]. Give bool \[3, "),
        ({"time": torch.rand(3)}, "not timed"),
    ):
        with pytest.raises(MinigenError, match=says):
            model(**{**given, **wrong})
    with pytest.raises(MinigenError, match="time is missing"):
        timed(**given)
