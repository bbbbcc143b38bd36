"""`minigen interop`: the table of docs/interop.md, official models beside this library with the same weights.

Each row builds an official model with random weights (nothing is downloaded), saves it in its official format, loads it
with this library's loaders, and compares the outputs of both for the same input. Sizes are the published ones, except
that there are fewer layers, which are all alike (the row says how many). "sd" is the standard deviation of what is
compared: a small difference means little if all numbers are nearly zero.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from minigen.codec import ResidualVectorQuantizer, load_codec
from minigen.display.tables import markdown_row, markdown_table
from minigen.engine.hub import find_model
from minigen.engine.weights import no_loading_bar
from minigen.evaluation.clap import load_judge, load_tagger
from minigen.generate import TextToAudio, generate_codes
from minigen.interop import (
    codec_to_encodec,
    lm_from_audiocraft,
    lm_from_musicgen,
    lm_to_musicgen,
    quantizer_to_encodec,
    quantizer_to_transformers,
)
from minigen.interop.random_models import (
    AudiocraftLM,
    decoder_config,
    musicgen_of,
    randomise,
    save_musicgen,
    word_tokenizer,
)
from minigen.lm import AudioLM
from minigen.text import load_text_encoder

Row = tuple[str, str, str, str]  # part, official name, what was compared, largest difference
SCALE = 0.05  # of the weights: suits layers about 1000 wide
MUSICGEN_CODEC = dict(num_filters=64, codebook_size=2048, target_bandwidths=[2.2], use_causal_conv=False,
                      use_conv_shortcut=False)  # fmt: skip


def _apart(*pairs: tuple[Tensor, Tensor]) -> str:
    """Largest difference within any pair, and the standard deviation of the last pair."""
    return (
        f"{max(float((ours - theirs).abs().max()) for ours, theirs in pairs):.1e} (sd {float(pairs[-1][1].std()):.2g})"
    )


def _equal(theirs: Tensor, *others: Tensor) -> str:
    equal = min(int((other == theirs).sum()) for other in others)
    return f"{equal} of {theirs.numel()} codes equal ({len(theirs.unique())} different ones)"


def _musicgen(folder: Path) -> list[Row]:
    """MusicGen's decoder: 1024 wide, 16 heads, 4 × 2048 codes, reading T5-base's 768."""
    from transformers import EncodecConfig, T5Config

    text = T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=1, num_heads=12, vocab_size=200)
    codec = EncodecConfig(**MUSICGEN_CODEC | {"num_filters": 4}, upsampling_ratios=[8, 5, 4, 4], sampling_rate=32000)
    theirs = musicgen_of(decoder_config(1024, 16, 2, 4096, size=2048), text, codec, SCALE)
    save_musicgen(theirs, folder)
    lm = lm_from_musicgen(folder)
    sequence, states, mask = _reading(2048, 768)
    logits = lambda states, mask: theirs(  # noqa: E731
        encoder_outputs=(states,), attention_mask=mask.long(), decoder_input_ids=sequence.flatten(0, 1)
    ).logits.view(2, 4, -1, 2048)
    with_text, without = logits(states, mask), logits(0 * states, 0 * mask)
    difference = _apart(
        (lm(sequence, states, mask), with_text),
        (lm(sequence), without),
        (_stepwise(lm, sequence, states, mask), with_text),
    )
    what = "logits with padded text, without text, with the cache; 2 of 24 layers"
    name = "facebook/musicgen-small (`transformers`)"
    return [("language model", name, what, difference), _greedy(folder, theirs)]


def _greedy(folder: Path, theirs: nn.Module) -> Row:
    """The whole pipeline, from caption to waveform, beside `generate` of `transformers`."""
    tokenizer = word_tokenizer()
    captions, seen, tta = ["a dog barks", "rain"], [], TextToAudio.from_pretrained(folder)
    decode = theirs.audio_encoder.decode
    theirs.audio_encoder.decode = lambda codes, **rest: seen.append(codes[0]) or decode(codes, **rest)
    read = tokenizer(captions, padding=True, return_tensors="pt")
    wav = theirs.generate(
        input_ids=read["input_ids"], attention_mask=read["attention_mask"], do_sample=False, guidance_scale=3.0,
        max_new_tokens=53,
    )  # fmt: skip
    codes = generate_codes(tta.lm, *tta.encoder(captions), 50, guidance=3.0, temperature=0)
    sound = tta.generate(captions, 1.0, guidance=3.0, temperature=0)
    difference = f"{_equal(seen[0], codes)}; waveform {_apart((sound, wav))}"
    what = "greedy codes and waveform of `generate(do_sample=False, guidance_scale=3)`, 1 s, 2 captions"
    return "text to sound", "facebook/musicgen-small (`transformers`)", what, difference


def _reading(size: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """A sequence [2, 4, 12], and texts of 3 and 6 words."""
    mask = torch.arange(6) < torch.tensor([3, 6])[:, None]
    return torch.randint(0, size + 1, (2, 4, 12)), torch.randn(2, 6, width) * mask[..., None], mask


def _stepwise(lm: AudioLM, sequence: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    cache = lm.start(len(sequence), sequence.shape[-1], states, mask)
    return torch.stack([lm.step(column, cache) for column in sequence.split(1, dim=-1)], dim=2)


def _back(_: Path) -> list[Row]:
    """The shipped model as a MusicGen."""
    lm = AudioLM.from_pretrained("mini")
    theirs = lm_to_musicgen(lm)
    sequence, states, mask = _reading(lm.config.codebook_size, lm.config.memory_width)
    projected = lm.memory_projection(states) * mask[..., None]
    logits = theirs(sequence.flatten(0, 1), encoder_hidden_states=projected, encoder_attention_mask=mask.long()).logits
    difference = _apart((lm(sequence, states, mask).flatten(0, 1), logits))
    return [
        ("language model, back", "`transformers.MusicgenForCausalLM`", "logits of the shipped `mini` in it", difference)
    ]


def _audiogen(_: Path) -> list[Row]:
    """AudioGen-medium's layers: 1536 wide, 24 heads, 4 × 2048 codes, reading T5-large's 1024."""
    theirs = randomise(AudiocraftLM(1536, 24, 1, codebooks=4, size=2048, memory=1024), SCALE)
    sequence, states = torch.randint(0, 2049, (2, 4, 12)), torch.randn(2, 6, 1024)
    lm = lm_from_audiocraft(theirs.state_dict(), {"num_heads": 24})
    difference = _apart((lm(sequence, states), theirs(sequence, states)))
    what = "logits against the same state dict on `torch.nn.MultiheadAttention`; 1 of 48 layers"
    return [("language model", "facebook/audiogen-medium (audiocraft)", what, difference)]


def _encodec(folder: Path) -> list[Row]:
    """Both official mono codecs and AudioGen's, whole, in three libraries."""
    from transformers import EncodecConfig, EncodecModel

    kinds = {
        "facebook/encodec_24khz": EncodecConfig(),
        "facebook/encodec_32khz": EncodecConfig(**MUSICGEN_CODEC, upsampling_ratios=[8, 5, 4, 4], sampling_rate=32000),
        "the codec of facebook/audiogen-medium": EncodecConfig(
            **MUSICGEN_CODEC, sampling_rate=16000, pad_mode="constant"
        ),
    }
    rows = []
    for number, (name, config) in enumerate(kinds.items()):
        theirs, wav = randomise(EncodecModel(config), SCALE), 0.5 * torch.randn(1, 1, config.sampling_rate // 2)
        theirs.save_pretrained(folder / str(number))
        codec = load_codec(folder / str(number))
        package = codec_to_encodec(codec)
        codes = theirs.encode(wav, bandwidth=codec.bandwidth).audio_codes[0]
        sound = theirs.decode(codes[None], [None]).audio_values
        equal = _equal(codes, codec.encode(wav), package.encode(wav)[0][0])
        apart = _apart((codec.decode(codes), sound), (package.decode([(codes, None)]), sound))
        what = "codes and waveform in `transformers`, the `encodec` package and here; 0.5 s of noise"
        rows.append(("codec", name, what, f"{equal}; waveform {apart}"))
    return rows


def _quantiser(_: Path) -> list[Row]:
    codec = load_codec("mini")
    ours: ResidualVectorQuantizer = codec.quantizer
    x = torch.randn(2, 100, ours.stages[0].codebook.shape[1]) * ours.stages[0].codebook.std()
    codes, theirs = ours.encode(x), x.transpose(1, 2)
    found = [quantizer_to_encodec(ours).encode(theirs, 50), quantizer_to_transformers(ours).encode(theirs)]
    equal = _equal(codes, *(their.transpose(0, 1) for their in found))
    return [
        ("quantiser, out", "`encodec` package, `transformers`", "codes of the shipped `mini` quantiser in both", equal)
    ]


def _text(folder: Path) -> list[Row]:
    """T5-base's and Flan-T5-base's encoders, with the shipped tokenizer."""
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    rows = []
    for name, kind in (("google-t5/t5-base", "relu"), ("google/flan-t5-base", "gated-gelu")):
        tokenizer = AutoTokenizer.from_pretrained(find_model("text", "mini"), local_files_only=True)
        sizes = dict(d_model=768, d_kv=64, d_ff=3072 if kind == "relu" else 2048, num_heads=12, num_layers=2)
        config = T5Config(**sizes, num_decoder_layers=1, feed_forward_proj=kind, vocab_size=len(tokenizer))
        theirs, place = randomise(T5ForConditionalGeneration(config), SCALE), folder / kind
        theirs.save_pretrained(place, max_shard_size="40MB")
        tokenizer.save_pretrained(place)
        captions = ["a dog barks", "rain falls on a roof while a siren wails"]
        batch = tokenizer(captions, padding=True, return_tensors="pt")
        expected = theirs.encoder(**batch).last_hidden_state * batch["attention_mask"][..., None]
        difference = _apart((load_text_encoder(place)(captions)[0], expected))
        rows.append(("text encoder", name, "states of padded captions, from shards; 2 of 12 layers", difference))
    return rows


def _judges(folder: Path) -> list[Row]:
    """CLAP with its extractor and AST with its own, small, on 2 s of noise."""
    from transformers import (
        ASTConfig,
        ASTFeatureExtractor,
        ASTForAudioClassification,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
    )

    wav, clap, ast = 0.1 * torch.randn(2, 1, 96000), folder / "clap", folder / "ast"
    tokenizer = load_judge("mini").tokenizer
    text = dict(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    audio = dict(patch_embeds_hidden_size=24, depths=[2, 2, 2, 2], num_attention_heads=[2, 2, 2, 2], hidden_size=192)
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio)).eval()
    extractor = ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad")
    for part in (model, extractor, tokenizer):
        part.save_pretrained(clap)
    heard = extractor([clip.numpy() for clip in wav[:, 0]], sampling_rate=48000, return_tensors="pt")
    read = tokenizer(["a dog barks", "rain"], padding=True, return_tensors="pt")
    judge = load_judge(clap)
    difference = _apart(
        (judge.embed_text(["a dog barks", "rain"]), model.get_text_features(**read).pooler_output),
        (judge.embed_audio(wav, 48000), model.get_audio_features(**heard).pooler_output),
    )
    rows = [("judge", "laion/clap-htsat-unfused", "embeddings of sounds and captions; small", difference)]
    model = randomise(
        ASTForAudioClassification(ASTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4)), SCALE
    )
    extractor = ASTFeatureExtractor()
    for part in (model, extractor):
        part.save_pretrained(ast)
    heard = extractor([clip.numpy() for clip in wav[:, 0]], sampling_rate=16000, return_tensors="pt")
    difference = _apart((load_tagger(ast).probabilities(wav), model(**heard).logits.sigmoid()))
    name = "MIT/ast-finetuned-audioset-10-10-0.4593"
    return [*rows, ("tagger", name, "probabilities of its kinds; 2 of 12 layers, narrow", difference)]


PARTS: tuple[Callable[[Path], list[Row]], ...] = (_musicgen, _back, _audiogen, _encodec, _quantiser, _text, _judges)


@torch.no_grad()
def print_report() -> None:
    """Print the table as Markdown, row by row."""
    print(markdown_table(("part", "official name", "what was compared", "largest difference"), []))
    for part in PARTS:
        torch.manual_seed(0)
        with TemporaryDirectory() as folder, no_loading_bar():
            for row in part(Path(folder)):
                print(markdown_row(row), flush=True)
