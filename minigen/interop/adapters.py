"""LoRA adapters for MusicGen in `transformers`: the names of an adapter's tensors, from here to there.

    here                                            transformers
    layers.0.self_attention.query.lora_A.weight     decoder.model.decoder.layers.0.self_attn.q_proj.lora_A.weight

The tensors stay as they are. `minigen.tuning.lora.merge_adapter` reads both; the way back needs no step of its own.
"""

from pathlib import Path

from minigen.engine.weights import rename
from minigen.interop.musicgen import NAMES
from minigen.tuning.lora import PREFIX, read_adapter, write_adapter

# NAMES with both sides exchanged: the patterns there are plain text, with a "^" where they stand at the start.
BACK = tuple(
    (("^" if pattern[0] == "^" else "") + new.replace(".", r"\."), pattern.strip("^").replace("\\", ""))
    for pattern, new in NAMES
)


def adapter_to_musicgen(folder: str | Path, out: str | Path, whole: bool = True) -> None:
    """Write an adapter of an `AudioLM` as one for MusicGen in `transformers`, which `peft` loads.

    Args:
        folder (str or Path): the adapter, in peft's format.
        out (str or Path): folder that is written.
        whole (bool): for a MusicgenForConditionalGeneration; otherwise for a MusicgenForCausalLM.

    Raises:
        MinigenError: no adapter in the folder, or the other cannot be written.
    """
    config, tensors = read_adapter(folder)
    front = PREFIX + ("decoder." if whole else "")
    theirs = {front + rename(name, BACK): tensor for name, tensor in tensors.items()}
    targets = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in theirs})
    write_adapter(out, {**config, "target_modules": targets}, theirs)
