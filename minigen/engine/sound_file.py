"""Opening and decoding of sound files with libsndfile, up to the true end of the data.

    source ──open_sound──► soundfile.SoundFile ──stated_frames──► frames, or None where the header does not know
                                               ──blocks─────────► float32 [frames, channels], until nothing is left

libsndfile takes the length from the header. That is wrong for three kinds of file:

- An mp3 without a Xing frame states no length. libsndfile estimates one from the bit rate of the first frame and reads
  no further; with a variable bit rate that can be a tenth of the sound.
- A flac that was written to a pipe states a length of 0, which libsndfile reports as 2^63 - 1 frames.
- GSM 6.10, G.72x and other codecs with a memory cannot seek, and the first frames of an mp3 after a seek are wrong,
  because an mp3 frame needs the ones before it.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    import soundfile

BLOCK = 2**16  # frames decoded at a time
MOST_FRAMES = 2**48  # a larger number in a header means that the length is unknown
MP3 = "MP3"
XING = re.compile(b"Xing|Info")


def open_sound(source: str | Path | bytes) -> "soundfile.SoundFile":
    """Open a sound file or the bytes of one, so that reading continues to the end of the data.

    Raises:
        soundfile.LibsndfileError, OSError, TypeError: it cannot be opened, or is no sound file.
    """
    import soundfile

    file = _open_as_it_is(source)
    if file.format != MP3:
        return file
    with io.BytesIO(source) if isinstance(source, bytes) else open(os.fsencode(source), "rb") as opened:
        if _states_its_length(opened):
            return file
        opened.seek(0)
        content = opened.read()
    file.close()
    return soundfile.SoundFile(_LengthlessFile(XING.sub(bytes(4), content, count=1)))


def stated_frames(file: "soundfile.SoundFile") -> int | None:
    """Number of frames in the header of an opened file; None if the header has no valid number."""
    unknown = isinstance(file.name, _LengthlessFile) or file.frames > MOST_FRAMES
    return None if unknown else file.frames


def count_frames(file: "soundfile.SoundFile") -> int:
    """Number of frames of an opened file: from the header, or counted by decoding (2000 times real time)."""
    stated = stated_frames(file)
    return sum(map(len, blocks(file))) if stated is None else stated


def blocks(file: "soundfile.SoundFile", size: int = BLOCK) -> "Iterator[np.ndarray]":
    """The rest of an opened file as float32 [up to `size` frames, channels], until nothing is left."""
    file.seekable = lambda: False  # soundfile would seek after each read, which corrupts the next frames of an mp3
    while len(block := file.read(size, dtype="float32", always_2d=True)):
        yield block


def read_frames(source: str | Path | bytes, first: int, count: int) -> "np.ndarray":
    """Up to `count` frames of a sound file from frame `first` on: float32 [frames, channels].

    A format that cannot seek exactly is decoded from its start, and the frames before `first` are dropped.

    Raises:
        soundfile.LibsndfileError, OSError: it cannot be read.
    """
    import numpy as np
    import soundfile

    with open_sound(source) as file:
        if stated_frames(file) is not None and file.format != MP3 and file.seekable():
            with suppress(soundfile.LibsndfileError):  # DWVW reports that it can seek, and fails
                file.seek(first)
                return file.read(count, dtype="float32", always_2d=True)
    with open_sound(source) as file:
        parts, place = [np.zeros((0, file.channels), np.float32)], 0
        for block in blocks(file):
            parts.append(block[max(0, first - place) : first + count - place])
            place += len(block)
            if place >= first + count:
                break
        return np.concatenate(parts)


def _open_as_it_is(source: str | Path | bytes) -> "soundfile.SoundFile":
    """An opened sound file, with the length that libsndfile gives it.

    macOS puts a file "._x.mp3" beside x.mp3, and libsndfile then expects the format Sound Designer II and fails. The
    content is then read from memory, without the name.
    """
    import soundfile

    if isinstance(source, bytes):
        return soundfile.SoundFile(io.BytesIO(source))
    try:
        return soundfile.SoundFile(os.fsencode(source))
    except soundfile.LibsndfileError:
        folder, name = os.path.split(source)
        if not os.path.exists(os.path.join(folder, f"._{name}")):
            raise
        return soundfile.SoundFile(io.BytesIO(Path(source).read_bytes()))


def _states_its_length(file: BinaryIO) -> bool:
    """Whether an mp3 has a Xing (or Info) frame with its number of frames that fits the size of the file.

    Two mp3s that were joined keep the Xing frame of the first: the file is larger than that frame says.
    Format: a tag "ID3" with its size in four bytes of 7 bits; then the first mp3 frame, and in it "Xing", flags, number
    of frames (flag 1) and number of bytes (flag 2), of four bytes each.
    """
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3":
        start = 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
    file.seek(start)
    frame = file.read(1024)
    tag = XING.search(frame)
    if tag is None:
        return False
    flags, _, promised = (int.from_bytes(frame[tag.end() + at : tag.end() + at + 4], "big") for at in (0, 4, 8))
    size = file.seek(0, os.SEEK_END) - start
    joined = flags & 3 == 3 and size > 1.05 * promised + 16384  # tags at the end are smaller than that
    return bool(flags & 1) and not joined


class _LengthlessFile:
    """The bytes of an mp3 as a file object that reports a thousand times its length.

    The length that libsndfile estimates is then too large, and reading stops at the end of the data. Near the reported
    end it returns zeros, because libsndfile looks for a tag there.
    """

    def __init__(self, content: bytes):
        self.content, self.length, self.place = content, 1000 * len(content), 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, within the reported length."""
        self.place = offset + (0, self.place, self.length)[whence]
        return self.place

    def tell(self) -> int:
        """The current position."""
        return self.place

    def read(self, count: int) -> bytes:
        """Bytes from the current position: none after the data, zeros near the reported end."""
        found = self.content[self.place : self.place + count]
        if self.place >= self.length - 1024:
            found = bytes(count)
        self.place += len(found)
        return found
