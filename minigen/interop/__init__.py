"""Official weights in and out: MusicGen, AudioGen (audiocraft), EnCodec.

Names are imported when they are asked for, since `transformers` takes seconds to import.
"""

from importlib import import_module

_HOME = {
    "lm_from_musicgen": "musicgen",
    "lm_to_musicgen": "musicgen",
    "pipeline_from_musicgen": "musicgen",
    "lm_from_audiocraft": "musicgen",
    "codec_from_encodec": "musicgen",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
