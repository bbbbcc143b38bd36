"""Captioned audio: the built-in corpus, AudioCaps, any folder."""
