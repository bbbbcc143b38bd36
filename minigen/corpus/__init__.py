"""Captioned audio: the built-in corpus, AudioCaps, any folder.

A name is imported when it is used: the processes that synthesise clips need no PyTorch, whose import takes a second.
"""

from importlib import import_module

_HOME = {
    "KINDS": "clip", "Clip": "clip", "Event": "clip", "Corpus": "corpus", "CorpusReport": "corpus",
    "read_corpus": "readers", "build_corpus": "synthesis.builtin", "mix_clips": "mixing", "mix_captions": "mixing",
    "LatentSet": "tokens", "TokenSet": "tokens", "tokenize": "tokens",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
