"""Generators beside the language model: networks that write a whole clip in a few steps. `base` is their protocol."""
