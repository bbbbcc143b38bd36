"""LoRA: against peft and against `transformers`, adapters on disk, and a training that changes nothing else."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from test_train import SIZES, Words, tokens

from minigen.engine.checkpoint import load_checkpoint
from minigen.engine.errors import MinigenError
from minigen.engine.weights import rename
from minigen.generate import generate_codes
from minigen.interop import adapter_to_musicgen, lm_from_musicgen, lm_to_musicgen
from minigen.interop.adapters import BACK
from minigen.interop.musicgen import NAMES
from minigen.lm import AudioLM
from minigen.train import CHECKPOINT, TrainConfig, Trainer, train
from minigen.tuning.lora import TARGETS, add_lora, is_adapted, merge_adapter, merged, save_adapter, without_adapter

THEIR_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def model(seed: int = 0, **sizes) -> AudioLM:
    torch.manual_seed(seed)
    return AudioLM(type(SIZES)(**{**vars(SIZES), **sizes})).eval()


def shake(lm: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give the matrices of an adapter values that show in the output."""
    chance = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(lm.named_parameters()):
        if ".lora_" in name:
            parameter.data.normal_(std=0.2, generator=chance)
    return lm


def logits(lm, seed: int = 0):
    chance = torch.Generator().manual_seed(seed)
    sequence = torch.randint(0, 17, (3, 2, 9), generator=chance)
    return lm(sequence, *Words()(["dog", "rain", "bell"]))


def stored(folder, rank: int = 4, **sizes):
    """A model, its adapter in a folder, and the logits of both together."""
    adapted = shake(add_lora(model(**sizes), rank, "base-name"))
    save_adapter(adapted, folder)
    return adapted


def test_a_new_adapter_changes_nothing_and_is_all_that_is_trained():
    plain, adapted = model(), add_lora(model(), 4)
    assert torch.equal(logits(plain), logits(adapted))
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    layers = {name.partition(".lora_")[0].rpartition(".")[2] for name in trained}
    assert all(".lora_" in name for name in trained) and layers == set(TARGETS)
    width, ffn = SIZES.width, SIZES.ffn
    by_hand = 4 * (8 * 2 * width + 2 * (width + ffn))  # rank x (in + out) of 8 square matrices and 2 wide ones
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == by_hand


def test_lora_is_two_products_beside_the_matrix():
    adapted = shake(add_lora(model(), 4)).layers[0].ffn_in
    x = torch.randn(5, SIZES.width, generator=torch.Generator().manual_seed(0))
    a, b = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    by_hand = x @ adapted.base_layer.weight.T + 2.0 * (x @ a.T) @ b.T
    assert torch.allclose(adapted(x), by_hand, atol=1e-6)


def test_merging_gives_the_outputs_of_the_adapter(tmp_path):
    adapted = stored(tmp_path)
    from_disk = merge_adapter(model(), tmp_path)
    assert not is_adapted(from_disk) and set(from_disk.state_dict()) == set(model().state_dict())
    assert (logits(adapted) - logits(model())).abs().max() > 0.1
    for plain in (from_disk, merged(adapted)):
        assert (logits(plain) - logits(adapted)).abs().max() < 1e-5


def test_peft_loads_the_adapter_and_merges_it_alike(tmp_path):
    adapted = stored(tmp_path)
    theirs = PeftModel.from_pretrained(model(), str(tmp_path))
    assert (logits(theirs.base_model.model) - logits(adapted)).abs().max() < 1e-6
    assert (logits(theirs.merge_and_unload()) - logits(merge_adapter(model(), tmp_path))).abs().max() < 1e-5
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "base-name"


@pytest.mark.parametrize("settings", [{"use_rslora": True}, {"rank_pattern": {"layers.0.ffn_in": 2}}])
def test_an_adapter_that_peft_saved_is_read(tmp_path, settings):
    config = LoraConfig(r=4, lora_alpha=3, target_modules=["query", "ffn_in"], **settings)
    theirs = shake(get_peft_model(model(), config))
    theirs.save_pretrained(str(tmp_path))
    assert (logits(merge_adapter(model(), tmp_path)) - logits(theirs.base_model.model)).abs().max() < 1e-5


def test_the_base_model_is_what_peft_gives_with_the_adapter_switched_off(tmp_path):
    adapted = stored(tmp_path)
    theirs, off = PeftModel.from_pretrained(model(), str(tmp_path)), without_adapter(adapted)
    with theirs.disable_adapter():
        assert torch.equal(logits(theirs.base_model.model), logits(off))
    assert torch.equal(logits(off), logits(model()))
    shared = off.layers[0].ffn_in.weight.data_ptr()
    assert shared == adapted.layers[0].ffn_in.base_layer.weight.data_ptr()


def test_generation_with_an_adapter_is_that_of_the_merged_model(tmp_path):
    adapted = stored(tmp_path)
    text = Words()(["dog", "rain"])
    options = {"frames": 12, "temperature": 0.0}
    with_adapter = generate_codes(adapted, *text, **options)
    assert torch.equal(with_adapter, generate_codes(merged(adapted), *text, **options))
    assert not torch.equal(with_adapter, generate_codes(model(), *text, **options))


# MusicGen in transformers


def test_the_names_of_all_weights_go_there_and_back():
    names = list(lm_to_musicgen(model()).state_dict())
    assert [rename(rename(name, NAMES), BACK) for name in names] == names


def test_lora_of_musicgen_in_transformers_and_here_gives_the_same_outputs(tmp_path):
    """Same weights, same settings of peft, adapters exchanged in both directions: outputs equal to 1e-5."""
    ours = model(memory_width=32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=THEIR_TARGETS)
    theirs = shake(get_peft_model(lm_to_musicgen(ours), config)).eval()
    theirs.save_pretrained(str(tmp_path / "theirs"))
    sequence = torch.randint(0, 17, (3, 2, 9))
    states, mask = torch.randn(3, 5, 32), torch.ones(3, 5, dtype=torch.bool)
    official = theirs(
        input_ids=sequence.flatten(0, 1), encoder_hidden_states=ours.memory_projection(states),
        encoder_attention_mask=mask.long(),
    ).logits  # fmt: skip
    here = merge_adapter(lm_from_musicgen(lm_to_musicgen(ours)), tmp_path / "theirs")
    here.memory_projection.load_state_dict(ours.memory_projection.state_dict())
    assert (here(sequence, states, mask).flatten(0, 1) - official).abs().max() < 1e-5
    assert (ours(sequence, states, mask).flatten(0, 1) - official).abs().max() > 0.1

    adapted = shake(add_lora(model(memory_width=32), 4), seed=3)
    save_adapter(adapted, tmp_path / "ours")
    adapter_to_musicgen(tmp_path / "ours", tmp_path / "back", whole=False)
    loaded = PeftModel.from_pretrained(lm_to_musicgen(ours), str(tmp_path / "back")).eval()
    official = loaded(
        input_ids=sequence.flatten(0, 1), encoder_hidden_states=ours.memory_projection(states),
        encoder_attention_mask=mask.long(),
    ).logits  # fmt: skip
    assert (adapted(sequence, states, mask).flatten(0, 1) - official).abs().max() < 1e-5


# training


def run(folder, lm, **settings):
    config = TrainConfig(**{"steps": 20, "batch_size": 8, "warmup": 3, "valid_every": 20, **settings})
    return lm, train(lm, Words(), tokens(), tokens(16, seed=1), folder, config, progress=False)


def test_a_training_moves_the_adapter_alone_and_stores_it_alone(tmp_path):
    adapted, history = run(tmp_path, add_lora(model(), 4), learning_rate=2e-2)
    assert history[-1]["valid"] < history[0]["valid"] - 0.1
    assert torch.equal(logits(without_adapter(adapted)), logits(model()))
    assert not (tmp_path / "model.safetensors").exists()
    assert (logits(merge_adapter(model(), tmp_path)) - logits(adapted)).abs().max() < 1e-5
    state = load_checkpoint(tmp_path / CHECKPOINT)
    assert all(".lora_" in name for part in ("lm", "ema") for name in state[part])


def test_an_interrupted_training_ends_with_the_same_adapter(tmp_path):
    settings = {"similarity": 1.0, "text_dropout": 0.4, "save_minutes": 0, "steps": 10}
    whole, _ = run(tmp_path / "whole", add_lora(model(), 4), **settings)
    step = Trainer.train_step

    def interrupt(self, *batch):
        if self.step == 6:
            raise KeyboardInterrupt
        return step(self, *batch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", interrupt)
        run(tmp_path / "broken", add_lora(model(), 4), **settings)
    resumed, _ = run(tmp_path / "broken", add_lora(model(), 4, seed=5), **settings)
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("other", [lambda: add_lora(model(), 2), lambda: add_lora(model(seed=1), 4), model])
def test_a_checkpoint_of_another_rank_or_base_is_refused(tmp_path, other):
    run(tmp_path, add_lora(model(), 4), steps=2)
    with pytest.raises(MinigenError, match="other settings"):
        run(tmp_path, other(), steps=2)


# refusals


@pytest.mark.parametrize("rank, said", [(0, "rank of LoRA is 0"), (-1, "is -1"), (2.5, "is 2.5"), (64, "rank 64")])
def test_an_impossible_rank_is_refused(rank, said):
    with pytest.raises(MinigenError, match=said):
        add_lora(model(), rank)


def test_a_second_adapter_is_refused():
    with pytest.raises(MinigenError, match="has an adapter already"):
        add_lora(add_lora(model(), 2), 2)


def test_an_adapter_of_another_model_is_refused(tmp_path):
    stored(tmp_path)
    with pytest.raises(
        MinigenError, match=r"made for another model: layers\.0\.\S+ is 32 x 32 there, 16 x 16.*base-name"
    ):
        merge_adapter(model(width=16), tmp_path)
    stored(tmp_path, layers=2)
    one = model()
    with pytest.raises(MinigenError, match=r"layers\.1\.\S+ is 32 x 32 there, missing in this one"):
        merge_adapter(one, tmp_path)
    assert all(torch.equal(value, model().state_dict()[name]) for name, value in one.state_dict().items())


def edit(folder, **settings):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize(
    "settings, said",
    [({"r": 8}, "has the rank 8 in adapter_config.json, but .* has 4"), ({"use_dora": True}, "uses use_dora"),
     ({"bias": "all"}, "uses bias"), ({"peft_type": "IA3"}, "of the kind 'IA3'"),
     ({"lora_alpha": None}, "has no number lora_alpha")],
)  # fmt: skip
def test_an_adapter_of_another_rank_or_kind_is_refused(tmp_path, settings, said):
    stored(tmp_path)
    edit(tmp_path, **settings)
    with pytest.raises(MinigenError, match=said):
        merge_adapter(model(), tmp_path)


def test_a_folder_without_an_adapter_and_a_damaged_one_are_refused(tmp_path):
    with pytest.raises(MinigenError, match="adapter_config.json is missing"):
        merge_adapter(model(), tmp_path)
    stored(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(MinigenError, match="is damaged"):
        merge_adapter(model(), tmp_path)
    weights.unlink()
    with pytest.raises(MinigenError, match="adapter_model.safetensors is missing"):
        merge_adapter(model(), tmp_path)
