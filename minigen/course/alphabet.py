"""The alphabet of the course: every letter has one meaning, in all notebooks and on the cheat sheet.

A notebook that introduces letters does so in a table whose header begins with `| letter |`. `tests/course` compares
these tables with `ALPHABET`, and holds the capital letters of the code to it.
"""

import re

ALPHABET = {  # letter -> (meaning, the words that every table of a notebook must contain, as a regular expression)
    "B": ("clips in a batch", "clips in a batch"),
    "N": ("text tokens of a caption", "text tokens"),
    "K": ("codebooks of the codec", "codebooks"),
    "V": ("entries of a codebook; V itself is the special token", "entries of a codebook"),
    "T": ("codec frames, 50 a second", "codec frames"),
    "S": ("columns of the sequence, T + 3", "columns of the sequence"),
    "L": ("cells of a clip, K · T codes", "cells"),
    "D": ("width of a vector; alone, that of the language model", "width|numbers in a vector"),
    "D_text": ("width of the text encoder", "width of the text encoder"),
    "F": ("inner width of the feed-forward layers", "inner width"),
    "H": ("entropy of a distribution", "entropy"),
    "C": ("kinds of event", "kinds of event"),
    "E": ("width of an embedding", "embedding"),
    "P": ("processes", "processes"),
    "n": ("clips of a set", "clips"),
    "w": ("guidance scale", "guidance"),
    "p": ("a probability", "probability"),
    "τ": ("temperature", "temperature"),
    "λ": ("weight of the regulariser", "weight of the regulariser"),
    "a": ("a sound (audio)", "sound"),
    "t": ("the text of a sound", "text"),
    "ℓ": ("a logit", "logit"),
}

LOCAL = {  # capital letters that code cells use for a matrix or a number of that cell alone
    "A": "a matrix",
    "M": "width of the states that cross-attention reads, AudioLMConfig.memory_width",
    "W": "a matrix of weights, or a number of steps",
}

ROW = re.compile(r"^\|([^|]+)\|([^|]+)\|", re.MULTILINE)


def letter_tables(text: str) -> list[tuple[str, str]]:
    """Letters and their meanings from the tables of a text whose header begins with `| letter |`.

    A row may hold several letters, separated by commas, and as many meanings, separated by semicolons.
    """
    found = []
    for table in re.findall(r"^\| letter \|.*(?:\n\|.*)+", text, re.MULTILINE):
        for letters, meaning in ROW.findall(table)[2:]:
            names = [re.sub(r"[$\\]|_v", "", name).replace("ell", "ℓ").strip() for name in letters.split(",")]
            parts = [part.strip() for part in meaning.split(";")] if len(names) > 1 else [meaning.strip()]
            found += list(zip(names, parts, strict=True))
    return found
