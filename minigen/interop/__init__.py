"""Official weights in and out: MusicGen, AudioGen (audiocraft), EnCodec.

    musicgen          MusicGen's language model and pipeline in `transformers`   <-> lm.AudioLM
    audiocraft        audiocraft's checkpoints of MusicGen, AudioGen and EnCodec  -> the same, as safetensors
    encodec           an official EnCodec behind the interface of `codec.Codec`
    adapters          LoRA adapters of MusicGen
    encodec_weights   EnCodec's weights in `transformers`, the `encodec` package and `quantizer`
    random_models     official models with random weights, for tests and for `minigen interop`

A name is imported when it is used, since `transformers` takes seconds to import.
"""

from importlib import import_module

_MODULES = {
    "EncodecCodec": "encodec",
    "adapter_to_musicgen": "adapters",
    "codec_from_audiocraft": "audiocraft",
    "codec_from_encodec": "encodec_weights",
    "codec_to_encodec": "encodec_weights",
    "convert_audiocraft": "audiocraft",
    "lm_from_audiocraft": "audiocraft",
    "lm_from_musicgen": "musicgen",
    "lm_to_musicgen": "musicgen",
    "pipeline_from_musicgen": "musicgen",
    "quantizer_from_encodec": "encodec_weights",
    "quantizer_to_encodec": "encodec_weights",
    "quantizer_to_transformers": "encodec_weights",
}  # the module that defines each name
__all__ = sorted(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
