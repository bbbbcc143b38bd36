"""Sounds inside pages."""

import base64
import io
import re

import soundfile


def sound_in(html: str) -> tuple:
    """Samples and rate of the first sound in a page."""
    source = re.search(r'src="data:audio/flac;base64,([^"]+)"', html)[1]
    return soundfile.read(io.BytesIO(base64.b64decode(source)), dtype="float32")
