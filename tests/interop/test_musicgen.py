"""Official weights in and out: the same logits, codes and waveforms as the libraries that published them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from official_models import (
    CODEC_SETTINGS,
    LM_SETTINGS,
    encodec_config,
    official_encodec,
    official_musicgen,
    package_encodec,
    t5_config,
)
from safetensors.torch import load_file, save_file

from minigen.codec import Codec, CodecConfig, ResidualVectorQuantizer, load_codec
from minigen.engine.errors import MinigenError
from minigen.evaluation.clap import Judge, JudgeConfig, Tagger, TaggerConfig, load_judge, load_tagger
from minigen.generate import TextToAudio, generate_codes
from minigen.interop import (
    codec_from_audiocraft,
    codec_from_encodec,
    codec_to_encodec,
    convert_audiocraft,
    lm_from_audiocraft,
    lm_from_musicgen,
    lm_to_musicgen,
    quantizer_from_encodec,
    quantizer_to_encodec,
    quantizer_to_transformers,
)
from minigen.interop.encodec import EncodecCodec
from minigen.interop.random_models import AudiocraftLM, decoder_config, randomise, save_musicgen, word_tokenizer
from minigen.lm import AudioLM, AudioLMConfig
from minigen.text import TextEncoder, load_text_encoder

CLOSE = {"atol": 1e-4, "rtol": 0}
CAPTIONS = ["a dog barks", "rain falls on a tin roof"]


def padded_text(batch: int, words: int, width: int):
    """States of texts of different lengths, zero where padded, and their mask; the last text has no padding."""
    mask = torch.arange(words) < torch.arange(words - batch + 1, words + 1)[:, None]
    return torch.randn(batch, words, width) * mask[..., None], mask


def codes_for(lm: AudioLM, batch: int = 2, steps: int = 7):
    return torch.randint(0, lm.config.codebook_size + 1, (batch, lm.config.num_codebooks, steps))


def stepwise(lm: AudioLM, sequence, *text):
    """Logits [B, K, S, V] through the cache, one column at a time."""
    cache = lm.start(len(sequence), sequence.shape[-1], *text)
    return torch.stack([lm.step(column, cache) for column in sequence.split(1, dim=-1)], dim=2)


def error_of(call, *args, **options) -> str:
    """The one line of a refusal."""
    with pytest.raises(MinigenError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# MusicGen's language model


@settings(max_examples=6, deadline=None)
@given(
    heads=st.integers(1, 4), depth=st.integers(1, 3), codebooks=st.integers(1, 5), bits=st.integers(2, 6),
    head_width=st.sampled_from([4, 6, 8]), text_width=st.sampled_from([8, 12, 20]),
)  # fmt: skip
@torch.no_grad()
def test_logits_of_any_size_of_musicgen_are_those_of_transformers(
    heads, depth, codebooks, bits, head_width, text_width
):
    config = decoder_config(heads * head_width, heads, depth, 10, codebooks, 2**bits)
    musicgen = official_musicgen(config, text_width)
    lm = lm_from_musicgen(musicgen)
    sequence, (states, mask) = codes_for(lm), padded_text(2, 5, text_width)
    read = {"encoder_outputs": (states,), "attention_mask": mask.long(), "decoder_input_ids": sequence.flatten(0, 1)}
    conditional = musicgen(**read).logits.view_as(lm(sequence))
    nothing = {"encoder_outputs": (0 * states,), "attention_mask": 0 * mask.long()}
    unconditional = musicgen(**{**read, **nothing}).logits.view_as(conditional)
    torch.testing.assert_close(lm(sequence, states, mask), conditional, **CLOSE)
    torch.testing.assert_close(lm(sequence), unconditional, **CLOSE)
    torch.testing.assert_close(stepwise(lm, sequence, states, mask), conditional, **CLOSE)
    torch.testing.assert_close(stepwise(lm, sequence), unconditional, **CLOSE)


@torch.no_grad()
def test_a_decoder_alone_reads_text_of_its_own_width_and_goes_back_and_forth(tmp_path):
    from transformers import MusicgenForCausalLM

    theirs = randomise(MusicgenForCausalLM(decoder_config()))
    lm = lm_from_musicgen(theirs)
    sequence, (states, mask) = codes_for(lm), padded_text(2, 5, 16)
    read = {"input_ids": sequence.flatten(0, 1), "encoder_hidden_states": states, "encoder_attention_mask": mask.long()}
    expected = theirs(**read).logits
    torch.testing.assert_close(lm(sequence, states, mask).flatten(0, 1), expected, **CLOSE)
    back = lm_to_musicgen(lm)
    torch.testing.assert_close(back(**read).logits, expected, **CLOSE)
    assert back.state_dict().keys() == theirs.state_dict().keys()
    back.save_pretrained(tmp_path)
    torch.testing.assert_close(MusicgenForCausalLM.from_pretrained(tmp_path)(**read).logits, expected, **CLOSE)
    again = lm_from_musicgen(tmp_path)
    assert torch.equal(again(sequence, states, mask), lm(sequence, states, mask))


@torch.no_grad()
def test_a_language_model_of_ours_is_a_musicgen_that_transformers_runs_and_saves():
    torch.manual_seed(3)
    lm = randomise(AudioLM(AudioLMConfig(3, 32, 24, 2, 4, 40, memory_width=12, delays=(0, 1, 2))))
    theirs, sequence, (states, mask) = lm_to_musicgen(lm), codes_for(lm), padded_text(2, 5, 12)
    projected = lm.memory_projection(states) * mask[..., None]
    logits = theirs(sequence.flatten(0, 1), encoder_hidden_states=projected, encoder_attention_mask=mask.long()).logits
    torch.testing.assert_close(logits, lm(sequence, states, mask).flatten(0, 1), **CLOSE)
    theirs.lm_heads[0].weight.zero_()  # a copy
    assert lm.heads[0].weight.any()
    with pytest.warns(match=r"not by \(0, 0, 0\)"):
        lm_to_musicgen(AudioLM(AudioLMConfig(3, 32, 24, 1, 4, 40, 12, delays=(0, 0, 0))))


def test_the_models_weights_are_copied_not_shared():
    musicgen = official_musicgen()
    lm = lm_from_musicgen(musicgen)
    with torch.no_grad():
        musicgen.decoder.lm_heads[0].weight.zero_()
    assert lm.heads[0].weight.any() and all(parameter.requires_grad for parameter in lm.parameters())


def test_what_is_no_mono_musicgen_is_refused_in_one_line(tmp_path):
    from transformers import MusicgenForCausalLM

    stereo = MusicgenForCausalLM(decoder_config(codebooks=4, audio_channels=2))
    assert "2 channels; minigen is mono" in error_of(lm_from_musicgen, stereo)
    stereo.save_pretrained(tmp_path)
    assert "2 channels; minigen is mono" in error_of(lm_from_musicgen, tmp_path)
    assert "'relu'" in error_of(lm_from_musicgen, MusicgenForCausalLM(decoder_config(activation_function="relu")))
    assert "not a MusicGen with heads" in error_of(lm_from_musicgen, torch.nn.Linear(1, 1))
    (tmp_path / "config.json").write_text('{"model_type": "musicgen_melody"}')
    for load in (lm_from_musicgen, TextToAudio.from_pretrained):
        assert "'musicgen_melody'" in error_of(load, tmp_path)
    assert "lm_from_musicgen" in error_of(AudioLM.from_pretrained, tmp_path)


# The whole pipeline of an official checkpoint


@pytest.fixture(scope="module")
def musicgen_folder(tmp_path_factory):
    torch.manual_seed(1)
    return save_musicgen(official_musicgen(), tmp_path_factory.mktemp("musicgen"))


@torch.no_grad()
def greedy_codes_and_waveform(folder, captions, frames, guidance):
    """What transformers makes of a checkpoint: its codes [B, K, frames] and its waveform."""
    from transformers import AutoTokenizer, MusicgenForConditionalGeneration

    model, seen = MusicgenForConditionalGeneration.from_pretrained(folder).eval(), []
    decode = model.audio_encoder.decode
    model.audio_encoder.decode = lambda codes, **rest: seen.append(codes[0]) or decode(codes, **rest)
    text = AutoTokenizer.from_pretrained(folder)(captions, padding=True, return_tensors="pt")
    steps = frames + model.config.decoder.num_codebooks - 1
    options = dict(do_sample=False, guidance_scale=guidance, max_new_tokens=steps)
    wav = model.generate(input_ids=text["input_ids"], attention_mask=text["attention_mask"], **options)
    return seen[0], wav


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_greedy_tokens_and_waveform_of_a_checkpoint_are_those_of_transformers(musicgen_folder, guidance):
    codes, wav = greedy_codes_and_waveform(musicgen_folder, CAPTIONS, 25, guidance)
    tta = TextToAudio.from_pretrained(musicgen_folder)
    ours = generate_codes(tta.lm, *tta.encoder(CAPTIONS), 25, guidance, temperature=0)
    assert torch.equal(ours, codes) and codes.shape == (2, 4, 25) and len(codes.unique()) > 5
    sound = tta.generate(CAPTIONS, seconds=0.5, guidance=guidance, temperature=0)
    torch.testing.assert_close(sound, wav, **CLOSE)
    assert wav.std() > 0.01 and not torch.equal(codes[0], codes[1])


def test_a_checkpoint_in_shards_with_the_names_of_older_versions_is_the_same(musicgen_folder, tmp_path):
    """Older ones saved the positions, and called weight normalisation weight_g and weight_v."""
    for file in musicgen_folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(musicgen_folder / "model.safetensors")
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in tensors.items()
    }
    old["decoder.model.decoder.embed_positions.weights"] = torch.randn(2048, 16)
    shards = [{}, {}]
    for number, name in enumerate(old):
        shards[number % 2][name] = old[name]
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for file, shard in zip(files, shards, strict=True):
        save_file(shard, tmp_path / file, {"format": "pt"})
    index = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    whole, sharded = TextToAudio.from_pretrained(musicgen_folder), TextToAudio.from_pretrained(tmp_path)
    options = {"seconds": 0.2, "temperature": 0}
    assert torch.equal(sharded.generate(CAPTIONS, **options), whole.generate(CAPTIONS, **options))
    (tmp_path / files[1]).unlink()
    assert files[1] in error_of(TextToAudio.from_pretrained, tmp_path)


def test_a_checkpoint_with_a_tensor_missing_is_refused_and_not_filled_with_noise(musicgen_folder, tmp_path):
    tensors = load_file(musicgen_folder / "model.safetensors")
    for file in musicgen_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for part in ("text_encoder.encoder.final_layer_norm.weight", "audio_encoder.encoder.layers.0.conv.bias",
                 "decoder.lm_heads.3.weight"):  # fmt: skip
        save_file({k: v for k, v in tensors.items() if k != part}, tmp_path / "model.safetensors", {"format": "pt"})
        assert "lacks" in (line := error_of(TextToAudio.from_pretrained, tmp_path)) or "missing" in line


def test_a_whole_musicgen_made_here_generates_the_same_in_transformers(musicgen_folder, tmp_path):
    tta = TextToAudio.from_pretrained(musicgen_folder)
    save_musicgen(lm_to_musicgen(tta.lm, tta.encoder, tta.codec), tmp_path)
    codes, wav = greedy_codes_and_waveform(tmp_path, CAPTIONS, 10, 3.0)
    assert torch.equal(codes, generate_codes(tta.lm, *tta.encoder(CAPTIONS), 10, 3.0, temperature=0))
    torch.testing.assert_close(tta.generate(CAPTIONS, 0.2, temperature=0), wav, **CLOSE)
    assert "Give both" in error_of(lm_to_musicgen, tta.lm, tta.encoder)


def test_a_pipeline_saved_whole_is_the_same_pipeline(musicgen_folder, tmp_path):
    tta = TextToAudio.from_pretrained(musicgen_folder)
    tta.save_pretrained(tmp_path, torch.float32)
    again = TextToAudio.from_pretrained(tmp_path)
    assert torch.equal(tta.generate("rain", 0.2, seed=1), again.generate("rain", 0.2, seed=1))
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".bin", ".pt")]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_request(musicgen_folder, dtype, tmp_path):
    tta, whole = TextToAudio.from_pretrained(musicgen_folder, dtype), TextToAudio.from_pretrained(musicgen_folder)
    assert {parameter.dtype for parameter in tta.lm.parameters()} == {dtype}
    kept = {dtype, torch.float32} if dtype == torch.float16 else {dtype}  # T5's wo stay in float32 beside float16
    assert {weight.dtype for weight in tta.encoder.model.parameters()} == kept
    assert {p.dtype for p in tta.codec.parameters()} == {torch.float32}
    states, mask = tta.encoder(CAPTIONS)
    sequence = codes_for(tta.lm)
    difference = (tta.lm(sequence, states, mask).float() - whole.lm(sequence, *whole.encoder(CAPTIONS))).abs()
    assert difference.mean() < 0.1 * whole.lm(sequence, *whole.encoder(CAPTIONS)).std()
    assert tta.generate(CAPTIONS, 0.2, seed=1).isfinite().all()
    assert lm_from_musicgen(musicgen_folder, dtype).norm.weight.dtype == dtype
    whole.save_pretrained(tmp_path)
    again = TextToAudio.from_pretrained(tmp_path, dtype)
    assert again.encoder.model.shared.weight.dtype == again.lm.norm.weight.dtype == dtype
    assert AudioLM.from_pretrained(tmp_path, None).norm.weight.dtype == torch.float16


MEMORY = """
import os, resource, sys, torch
import transformers.models.musicgen.modeling_musicgen, transformers.models.encodec.modeling_encodec
from transformers import AutoTokenizer, T5EncoderModel
from minigen.generate import TextToAudio
from minigen.interop import lm_from_musicgen
from minigen.lm import AudioLM

def peak(load):
    "Memory that a process takes at the most, beyond what it had, to load a model and to use every weight of it."
    reader, writer = os.pipe()
    if os.fork() == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # a new process begins with what it has now
        loaded = load()
        parts = [loaded.lm, loaded.encoder.model, loaded.codec] if hasattr(loaded, "lm") else [loaded]
        sum(float(tensor.sum()) for part in parts for tensor in part.state_dict().values())
        os.write(writer, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode())
        os._exit(0)
    os.wait()
    return 1024 * int(os.read(reader, 99))

musicgen, ours = sys.argv[1:]
AutoTokenizer.from_pretrained(musicgen)  # loads what the library needs, not what the checkpoint takes
size = {folder: os.path.getsize(folder + "/model.safetensors") for folder in (musicgen, ours)}
print(peak(lambda: TextToAudio.from_pretrained(musicgen)) / size[musicgen])
print(peak(lambda: lm_from_musicgen(musicgen)) / size[musicgen])
print(peak(lambda: AudioLM.from_pretrained(ours)) / size[ours])
print(peak(lambda: TextToAudio.from_pretrained(musicgen, torch.float16)) / size[musicgen])
print(peak(lambda: AudioLM.from_pretrained(ours, torch.float16)) / size[ours])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a new process counts its parent's memory")
def test_loading_takes_no_more_memory_than_the_checkpoint_and_a_fifth(tmp_path):
    """Resident memory at its highest, mapped pages of the file included, every weight touched; size: of the file."""
    musicgen = official_musicgen(decoder_config(1024, 8, 3, 4096))
    save_musicgen(musicgen, tmp_path / "musicgen")
    assert (tmp_path / "musicgen" / "model.safetensors").stat().st_size > 200e6
    lm_from_musicgen(musicgen).save_pretrained(tmp_path / "ours", torch.float32)
    argv = [sys.executable, "-c", MEMORY, str(tmp_path / "musicgen"), str(tmp_path / "ours")]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    whole, part, ours, *half = map(float, done.stdout.split())
    assert max(whole, part, ours) < 1.2, done.stdout
    assert max(half) < 0.7, done.stdout


# audiocraft


@pytest.fixture(scope="module")
def audiocraft_lm():
    torch.manual_seed(2)
    return randomise(AudiocraftLM())


@torch.no_grad()
def test_logits_of_an_audiocraft_state_dict_are_those_of_its_model(audiocraft_lm):
    lm = lm_from_audiocraft(audiocraft_lm.state_dict(), LM_SETTINGS)
    sequence, states = codes_for(lm), torch.randn(2, 5, 12)
    expected = audiocraft_lm(sequence, states)
    torch.testing.assert_close(lm(sequence, states), expected, **CLOSE)
    torch.testing.assert_close(stepwise(lm, sequence, states), expected, **CLOSE)
    torch.testing.assert_close(lm(sequence), audiocraft_lm(sequence), **CLOSE)
    assert lm.config.delays == (0, 1, 2, 3)


@torch.no_grad()
def test_the_settings_may_be_a_mapping_or_its_model_section_and_the_weights_half_precision(audiocraft_lm):
    import yaml

    state, sequence = audiocraft_lm.state_dict(), torch.randint(0, 33, (2, 4, 5))
    expected = lm_from_audiocraft(state, LM_SETTINGS)(sequence)
    whole = yaml.safe_load(LM_SETTINGS)
    for config in (whole, whole["transformer_lm"], {"num_heads": 2}):
        assert torch.equal(lm_from_audiocraft(state, config)(sequence), expected)
    parallel = {**whole, "codebooks_pattern": {"modeling": "parallel"}}
    assert lm_from_audiocraft(state, parallel).config.delays == (0, 0, 0, 0)
    half = {name: tensor.half() for name, tensor in state.items()}
    assert lm_from_audiocraft(half, whole).norm.weight.dtype == torch.float32
    assert lm_from_audiocraft(half, whole, None).norm.weight.dtype == torch.float16
    assert lm_from_audiocraft({"best_state": state}, whole).config.heads == 2
    same = lm_from_audiocraft(state, AudioLMConfig(heads=2, delays=(0, 2, 2, 3)))
    assert torch.equal(same(sequence), expected) and same.config.delays == (0, 2, 2, 3)


def test_audiocraft_models_of_another_make_are_refused_in_one_line(audiocraft_lm):
    state = audiocraft_lm.state_dict()
    chroma = "condition_provider.conditioners.self_wav.output_proj.weight"
    for tensors, config, says in (
        (state, {}, "num_heads"),
        (state, {"num_heads": 2, "dim": 99}, "dim is 99 in the settings, 16 in the tensors"),
        (state, {"num_heads": 2, "positional_embedding": "rope"}, "'rope'"),
        (state, {"transformer_lm": {"num_heads": 2}, "lm_model": "transformer_lm_magnet"}, "magnet"),
        (state, {"transformer_lm": {"num_heads": 2}, "codebooks_pattern": {"modeling": "unroll"}}, "'unroll'"),
        ({**state, chroma: torch.zeros(1)}, {"num_heads": 2}, "self_wav"),
        ({**state, "linears.0.bias": torch.zeros(32)}, {"num_heads": 2}, "no such tensor"),
        ({"encoder.model.0.bias": torch.zeros(1)}, {"num_heads": 2}, "embeddings.0.weight"),
        ({"best_state": None}, {"num_heads": 2}, "no state dict"),
        (state, "a: [", "no YAML"),
        (state, None, "no settings"),
    ):
        assert says in error_of(lm_from_audiocraft, tensors, config)


@torch.no_grad()
def test_the_codec_of_an_audiocraft_checkpoint_gives_the_codes_and_the_waveform_of_its_network():
    network = package_encodec(true_skip=True, pad_mode="constant", causal=False)
    codec, wav = codec_from_audiocraft(network.state_dict(), CODEC_SETTINGS), 0.5 * torch.randn(2, 1, 203)
    codes = network.encode(wav)[0][0]
    assert torch.equal(codec.encode(wav), codes) and len(codes.unique()) > 9
    torch.testing.assert_close(codec.decode(codes), network.decode([(codes, None)]), **CLOSE)
    assert (codec.sample_rate, codec.frame_rate, codec.num_codebooks, codec.codebook_size) == (400, 50, 4, 32)
    for change, other, says in (
        ("rvq:", "other:", "rvq.n_q"), ("activation: ELU", "activation: Tanh", "'Tanh'"), 
        ("bins: 32", "bins: 64", "EnCodec"),
        ("renormalize: false", "renormalize: true", "normalises"), ("channels: 1", "channels: 2", "2 channels"),
    ):  # fmt: skip
        assert says in error_of(codec_from_audiocraft, network.state_dict(), CODEC_SETTINGS.replace(change, other))


class Anything:
    """What a checkpoint may not hold."""


@pytest.fixture
def audiocraft_folder(audiocraft_lm, tmp_path):
    """state_dict.bin and compression_state_dict.bin as audiocraft exports them, and a text encoder beside them."""
    from transformers import T5EncoderModel

    folder, text = tmp_path / "audiogen", tmp_path / "t5"
    folder.mkdir()
    randomise(T5EncoderModel(t5_config())).save_pretrained(text)
    word_tokenizer().save_pretrained(text)
    extra = {"version": "1.3.0", "exported": True}
    network = package_encodec(true_skip=True, pad_mode="constant", causal=False)
    parts = {"state_dict.bin": (audiocraft_lm.state_dict(), LM_SETTINGS.replace("TEXT", str(text))),
             "compression_state_dict.bin": (network.state_dict(), CODEC_SETTINGS)}  # fmt: skip
    for file, (state, config) in parts.items():
        torch.save({"best_state": state, "xp.cfg": config, **extra}, folder / file)
    return folder


@torch.no_grad()
def test_an_audiocraft_checkpoint_is_converted_once_into_a_pipeline_of_safetensors(audiocraft_folder, tmp_path):
    out = tmp_path / "converted"
    convert_audiocraft(audiocraft_folder, out, torch.float32)
    assert {file.suffix for file in out.rglob("*") if file.is_file()} == {".json", ".safetensors"}
    tta = TextToAudio.from_pretrained(out)
    state = torch.load(audiocraft_folder / "state_dict.bin", weights_only=True)
    lm = lm_from_audiocraft(state["best_state"], state["xp.cfg"])
    assert all(torch.equal(tensor, lm.state_dict()[name]) for name, tensor in tta.lm.state_dict().items())
    wav = 0.5 * torch.randn(1, 1, 160)
    compression = torch.load(audiocraft_folder / "compression_state_dict.bin", weights_only=True)
    direct = codec_from_audiocraft(compression["best_state"], compression["xp.cfg"])
    assert torch.equal(tta.codec.encode(wav), direct.encode(wav))
    assert tta.generate("rain", 0.2, temperature=0).shape == (1, 1, 80)


def test_the_codec_of_a_musicgen_of_audiocraft_is_only_named(audiocraft_folder, tmp_path):
    torch.save({"pretrained": "facebook/encodec_32khz"}, audiocraft_folder / "compression_state_dict.bin")
    convert_audiocraft(audiocraft_folder, tmp_path / "out")
    assert json.loads((tmp_path / "out/pipeline.json").read_text())["codec"] == "facebook/encodec_32khz"


def test_a_checkpoint_that_holds_more_than_tensors_is_never_opened(audiocraft_folder, tmp_path):
    torch.save({"best_state": {}, "xp.cfg": Anything()}, audiocraft_folder / "state_dict.bin")
    line = error_of(convert_audiocraft, audiocraft_folder, tmp_path / "out")
    assert "Anything" in line and "audiocraft.utils.export" in line and "run any program" in line
    (audiocraft_folder / "state_dict.bin").write_bytes(b"\x80\x02cut")
    assert "state_dict.bin" in error_of(convert_audiocraft, audiocraft_folder, tmp_path / "out")
    (audiocraft_folder / "state_dict.bin").unlink()
    assert "state_dict.bin" in error_of(convert_audiocraft, audiocraft_folder, tmp_path / "out")
    assert "state_dict.bin" in error_of(convert_audiocraft, "facebook/audiogen-medium", tmp_path / "out")


def test_pickled_weights_are_refused_with_the_reason_and_the_way_out(audiocraft_folder, tmp_path):
    line = error_of(TextToAudio.from_pretrained, audiocraft_folder)
    assert "a pickle, a program that runs" in line and f"minigen convert {audiocraft_folder}" in line
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(b"")
    for load in (AudioLM.from_pretrained, lm_from_musicgen, load_codec, load_text_encoder, load_judge, load_tagger,
                 EncodecCodec.from_pretrained, codec_from_encodec):  # fmt: skip
        for place in (tmp_path / "old", tmp_path / "old" / "pytorch_model.bin"):
            assert "a pickle" in error_of(load, place)


# EnCodec


@pytest.mark.parametrize("causal", [True, False], ids=["24 kHz", "32 kHz"])
@torch.no_grad()
def test_an_encodec_gives_the_same_codes_and_waveform_in_three_libraries(causal, tmp_path):
    theirs, wav = official_encodec(causal=causal, codebooks=4), 0.5 * torch.randn(2, 1, 203)
    theirs.save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    package = codec_to_encodec(codec)
    codes = theirs.encode(wav).audio_codes[0]
    decoded = theirs.decode(codes[None], [None]).audio_values
    assert len(codes.unique()) > 9 and codec.num_codebooks == 4
    assert torch.equal(codec.encode(wav), codes) and torch.equal(package.encode(wav)[0][0], codes)
    torch.testing.assert_close(codec.decode(codes), decoded, **CLOSE)
    torch.testing.assert_close(package.decode([(codes, None)]), decoded, **CLOSE)
    back = codec_from_encodec(package)
    assert torch.equal(back.encode(wav), codes) and torch.equal(back.decode(codes), codec.decode(codes))


@pytest.mark.parametrize("sizes", [{}, {"true_skip": True, "causal": False, "pad_mode": "constant"}, {"residuals": 2}])
@torch.no_grad()
def test_a_model_of_the_encodec_package_becomes_a_codec_that_is_saved_in_the_official_format(sizes, tmp_path):
    package, wav = package_encodec(**sizes), 0.5 * torch.randn(2, 1, 203)
    codes = package.encode(wav)[0][0]
    codec = codec_from_encodec(package)
    codec.save_pretrained(tmp_path)
    for same in (codec, load_codec(tmp_path), codec_from_encodec(str(tmp_path)), codec_from_encodec(codec.model)):
        assert torch.equal(same.encode(wav), codes)
        torch.testing.assert_close(same.decode(codes), package.decode([(codes, None)]), **CLOSE)


def test_the_published_24_khz_architecture_of_the_package_is_read_off_its_layers():
    from encodec import EncodecModel as PackageModel
    from transformers import EncodecConfig

    from minigen.interop.encodec_weights import _package_settings

    settings = _package_settings(PackageModel.encodec_model_24khz(pretrained=False))
    official = EncodecConfig().to_dict()
    for name, value in settings.items():
        assert list(value) == list(official[name]) if isinstance(value, list) else value == official[name], name


@torch.no_grad()
def test_the_published_24_khz_model_of_the_package_gives_its_codes():
    from encodec import EncodecModel as PackageModel

    torch.manual_seed(0)
    package = PackageModel.encodec_model_24khz(pretrained=False).eval()
    for layer in package.quantizer.vq.layers:
        layer._codebook.embed.normal_()
    package.set_target_bandwidth(6.0)
    wav = 0.1 * torch.randn(1, 1, 4800)
    assert torch.equal(codec_from_encodec(package).encode(wav), package.encode(wav)[0][0])


def test_a_stereo_encodec_is_refused_before_its_weights_are_read(tmp_path):
    from encodec import EncodecModel as PackageModel

    encodec_config(audio_channels=2).save_pretrained(tmp_path)
    assert "2 channels; minigen is mono" in error_of(load_codec, tmp_path)
    encodec_config(chunk_length_s=1.0, overlap=0.01).save_pretrained(tmp_path)
    assert "chunks" in error_of(load_codec, tmp_path)
    assert "2 channels" in error_of(codec_from_encodec, PackageModel.encodec_model_48khz(pretrained=False))


@torch.no_grad()
def test_the_projects_quantiser_gives_the_same_codes_in_both_packages():
    ours, x = ResidualVectorQuantizer(4, 24, 6), torch.randn(2, 11, 6)
    codes = ours.encode(x)
    package, theirs = quantizer_to_encodec(ours), quantizer_to_transformers(ours)
    assert torch.equal(package.encode(x.transpose(1, 2), 50).transpose(0, 1), codes)
    assert torch.equal(theirs.encode(x.transpose(1, 2)).transpose(0, 1), codes)
    assert len(theirs.layers) == 4
    for same in (package, theirs):
        torch.testing.assert_close(same.decode(codes.transpose(0, 1)).transpose(1, 2), ours.decode(codes), **CLOSE)
        assert torch.equal(quantizer_from_encodec(same).encode(x), codes)


# Text and judges, by name


@pytest.mark.parametrize("gated", [False, True], ids=["T5", "Flan-T5"])
@torch.no_grad()
def test_any_t5_gives_the_states_of_transformers_also_from_shards(gated, tmp_path):
    from transformers import T5ForConditionalGeneration

    whole = randomise(T5ForConditionalGeneration(t5_config(gated)))
    whole.save_pretrained(tmp_path, max_shard_size="4KB")
    word_tokenizer().save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 and (tmp_path / "tokenizer.json").is_file()
    encoder = load_text_encoder(tmp_path)
    batch = word_tokenizer()(CAPTIONS, padding=True, return_tensors="pt")
    mask = batch["attention_mask"][..., None]
    states, real = encoder(CAPTIONS)
    assert not real.all() and real.sum(1).tolist() == mask.sum((1, 2)).tolist()
    torch.testing.assert_close(states, whole.encoder(**batch).last_hidden_state * mask, **CLOSE)
    encoder.save_pretrained(tmp_path / "again")
    assert torch.equal(TextEncoder.from_pretrained(tmp_path / "again")(CAPTIONS)[0], states)


def test_official_names_are_looked_up_on_the_hub_and_loaded_from_there(
    musicgen_folder,
    official_clap,
    official_ast,
    tmp_path,
    monkeypatch,
):
    from transformers import T5EncoderModel

    T5EncoderModel(t5_config()).save_pretrained(tmp_path / "t5")
    word_tokenizer().save_pretrained(tmp_path / "t5")
    official_encodec(causal=True).save_pretrained(tmp_path / "24khz")
    hub = {"facebook/musicgen-small": musicgen_folder, "facebook/encodec_24khz": tmp_path / "24khz",
           "google/flan-t5-base": tmp_path / "t5", "t5-base": tmp_path / "t5",
           "laion/clap-htsat-unfused": official_clap, "MIT/ast": official_ast}  # fmt: skip
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(hub[name]))
    assert TextToAudio.from_pretrained("facebook/musicgen-small").codec.codebook_size == 32
    assert lm_from_musicgen("facebook/musicgen-small").config.width == 16
    assert load_codec("facebook/encodec_24khz").model.config.use_causal_conv
    assert load_text_encoder("google/flan-t5-base").width == load_text_encoder("t5-base").width == 12
    assert load_judge("laion/clap-htsat-unfused").embed_text(["rain"]).shape == (1, 24)
    assert load_tagger("MIT/ast").kinds == ("Speech", "Rain", "Dog")


def test_names_that_cannot_be_fetched_are_one_line_that_says_what_to_place_where():
    for load, name in (
        (TextToAudio.from_pretrained, "facebook/musicgen-small"), (lm_from_musicgen, "facebook/musicgen-small"),
        (AudioLM.from_pretrained, "someone/audiolm"), (load_codec, "facebook/encodec_32khz"),
        (EncodecCodec.from_pretrained, "facebook/encodec_24khz"), (load_text_encoder, "t5-base"),
        (load_judge, "laion/clap-htsat-unfused"), (load_tagger, "MIT/ast"), (Judge.from_pretrained, "a/judge"),
    ):  # fmt: skip
        line = error_of(load, name)
        assert f"{name!r} is not on disk and could not be fetched" in line and "By hand: put config.json" in line
        assert f"https://huggingface.co/{name}/tree/main" in line and "model.safetensors" in line and len(line) < 600


# Sharing


class Hub:
    """A stand-in for the hub's API that keeps what is uploaded in a folder."""

    def __init__(self, folder: Path):
        self.folder, self.calls = folder, []

    def __call__(self, token=None):
        self.calls.append(("login", token))
        return self

    def create_repo(self, repo_id, **options):
        from huggingface_hub import RepoUrl

        self.calls.append(("create", repo_id, options))
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, repo_id, folder_path, **options):
        import shutil

        self.calls.append(("upload", repo_id, options))
        shutil.copytree(folder_path, self.folder / repo_id)
        return f"https://huggingface.co/{repo_id}/commit/1"


def shareable():
    from minigen.recipes.judge.captions import train_tokenizer

    torch.manual_seed(4)
    tokenizer = train_tokenizer(["a dog barks", "rain falls"], 300)
    kinds = ("rain", "dog_bark")
    codec = dict(hop=80, parts=2, n_fft=160, width=16, blocks=1, latent=8, num_codebooks=3, codebook_size=16)
    return [
        AudioLM(AudioLMConfig(2, 16, 16, 1, 2, 32, 8, delays=(0, 1))), Codec(CodecConfig(**codec)),
        Judge(JudgeConfig(width=16, layers=1, heads=2, pieces=len(tokenizer)), tokenizer),
        Tagger(TaggerConfig(kinds=kinds, channels=(4, 4, 4, 4), width=8)), EncodecCodec(official_encodec()),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(5), ids=["AudioLM", "Codec", "Judge", "Tagger", "EncodecCodec"])
def test_a_model_is_pushed_to_the_hub_and_comes_back_by_its_name(number, tmp_path, monkeypatch):
    hub, model = Hub(tmp_path), shareable()[number]
    monkeypatch.setattr("huggingface_hub.HfApi", hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(tmp_path / name))
    link = model.push_to_hub("someone/model", private=True, token="secret", commit_message="First")
    assert link == "https://huggingface.co/someone/model/commit/1"
    assert hub.calls[0] == ("login", "secret") and hub.calls[1][2]["private"]
    assert hub.calls[2][2]["commit_message"] == "First"
    files = {file.name for file in (tmp_path / "someone/model").iterdir()}
    assert {"config.json", "model.safetensors", "README.md"} <= files
    assert not [file for file in files if file.endswith((".bin", ".pt"))]
    card = (tmp_path / "someone/model/README.md").read_text()
    assert (
        card.startswith("---\nlibrary_name: minigen\n") and f'{type(model).__name__}.from_pretrained("someone/m' in card
    )
    again = type(model).from_pretrained("someone/model")
    assert not again.training
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=1e-2, rtol=1e-2)


def test_a_whole_pipeline_is_pushed_to_the_hub_and_makes_the_same_sound_when_it_comes_back(tmp_path, monkeypatch):
    """Language model, codec, text encoder and the names that tie them together: all in one repository."""
    from minigen.t5 import T5Config, T5Encoder

    sizes = T5Config.of(t5_config().to_dict())
    encoder = TextEncoder(randomise(T5Encoder(sizes)), word_tokenizer().backend_tokenizer)
    sizes = dict(hop=80, parts=2, n_fft=160, width=16, blocks=1, latent=8, num_codebooks=2, codebook_size=16)
    lm = AudioLM(AudioLMConfig(2, 16, 16, 1, 2, 32, encoder.width, delays=(0, 1)))
    tta = TextToAudio(Codec(CodecConfig(**sizes)).eval(), encoder, lm)
    monkeypatch.setattr("huggingface_hub.HfApi", Hub(tmp_path))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(tmp_path / name))
    assert tta.push_to_hub("someone/pipeline").endswith("someone/pipeline/commit/1")
    folder = tmp_path / "someone/pipeline"
    assert {"pipeline.json", "model.safetensors", "codec", "text", "README.md"} <= set(os.listdir(folder))
    assert 'TextToAudio.from_pretrained("someone/pipeline")' in (folder / "README.md").read_text()
    tta.save_pretrained(tmp_path / "here")
    sounds = [TextToAudio.from_pretrained(name).generate(["a dog"], 0.1, seed=0) for name in
              ("someone/pipeline", tmp_path / "here")]  # fmt: skip
    assert torch.equal(*sounds)


def test_an_upload_that_fails_is_one_line(monkeypatch):
    def refuse(*_, **__):
        raise OSError("401 Client Error\nInvalid user token")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    line = error_of(shareable()[0].push_to_hub, "someone/model")
    assert "someone/model" in line and "hf auth login" in line and "Invalid user token" in line
