"""Broken and unusual inputs, made on the spot: sounds, and tables of captions."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def tone(seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


def sound(samples=None, rate=RATE, subtype="PCM_16", kind="WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(rate=rate) if samples is None else samples, rate, subtype, format=kind)
    return file.getvalue()


def patched(at: int, new: bytes) -> bytes:
    """A good wav file with some bytes of its header changed."""
    good = sound()
    return good[:at] + new + good[at + len(new) :]


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("x.wav", sound())
    return file.getvalue()


def two_hours(path: Path) -> None:
    """A second of tone, then a hole in the file: it takes no room on the disk."""
    size = 2 * 3600 * RATE * 2
    header = bytearray(sound(tone(1.0)))
    header[4:8], header[40:44] = (36 + size).to_bytes(4, "little"), size.to_bytes(4, "little")
    path.write_bytes(header)
    os.truncate(path, 44 + size)


NOT_USABLE = {
    "empty.wav": b"",
    "truncated.wav": sound()[:5000],
    "cut in the header.wav": sound()[:30],
    "wrong header.wav": b"RIFX" + sound()[4:],
    "text.wav": b"not sound at all",
    "zip.wav": archive(),
    "random.wav": np.random.default_rng(0).bytes(4000),
    "random.mp3": np.random.default_rng(1).bytes(4000),
    "random.ogg": b"OggS" + np.random.default_rng(2).bytes(4000),
    "cut.flac": sound(kind="FLAC")[:60],
    "no samples.wav": sound(np.zeros(0)),
    "zero rate.wav": patched(24, b"\0\0\0\0"),
    "zero channels.wav": patched(22, b"\0\0"),
    "65535 channels.wav": patched(22, b"\xff\xff"),
    "unknown codec.wav": patched(20, b"\x99\x99"),
    "claims 2 GB.wav": patched(40, (2_000_000_000).to_bytes(4, "little")),
    "nan.wav": sound(np.full(8000, np.nan), subtype="FLOAT"),
    "one infinity.wav": sound(np.append(np.inf, tone()), subtype="DOUBLE"),
    "silent.wav": sound(np.zeros(8000)),
    "dc.wav": sound(np.full(8000, 0.5)),
    "folder.wav": Path.mkdir,
    "link to nowhere.wav": lambda path: path.symlink_to("nowhere.wav"),
    "link to itself.wav": lambda path: path.symlink_to(path.name),
    "pipe.wav": os.mkfifo,
}
USABLE = {
    "8 bit.wav": sound(subtype="PCM_U8"),
    "24 bit.wav": sound(subtype="PCM_24"),
    "float64.wav": sound(subtype="DOUBLE"),
    "clipped.wav": sound(4 * tone(), subtype="FLOAT"),
    "96 kHz.wav": sound(rate=96000),
    "8 channels.wav": sound(np.stack([tone()] * 8, 1)),
    "one sample more.wav": sound(np.append(tone(), 0.1)),
    "two hours.wav": two_hours,
    "vorbis.ogg": sound(kind="OGG", subtype="VORBIS"),
    "mpeg.mp3": sound(kind="MP3", subtype="MPEG_LAYER_III"),
    "été à l'œil  🐕 «x».wav": sound(),
    "-rf.wav": sound(),
    "%s {0} $HOME;ls.wav": sound(),
}
SOUNDS = {**NOT_USABLE, **USABLE}


def write_sounds(folder: Path, sounds: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in sounds.items():
        content(folder / name) if callable(content) else (folder / name).write_bytes(content)
    return folder


ROWS = ["a.wav,A dog barks", "b.wav,Rain falls"]


def rows(*more: str, header: str = "file,caption", end: str = "\n") -> str:
    return end.join([header, *ROWS, *more]) + end


REFUSED_TABLES = {
    "empty": b"",
    "only a header": b"file,caption\n",
    "no caption": rows(header="file,words").encode(),
    "no file and no id": rows(header="name,caption").encode(),
    "no header": rows(header="c.wav,Wind blows").encode(),
    "junk": np.random.default_rng(3).bytes(5000),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(500),
    "10 000 other columns": ",".join(f"c{i}" for i in range(10_000)).encode(),
    "only files that are not there": b"file,caption\nnone.wav,A sound\n",
    "only paths that lead out": b"file,caption\n../secret.wav,A\n/etc/hostname,B\n../../../../etc/passwd,C\n",
}
USABLE_TABLES = {
    "semicolons": rows().replace(",", ";").encode(),
    "tabs": rows().replace(",", "\t").encode(),
    "another name of the column": rows(header="file,text").encode(),
    "UTF-16": rows().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + rows().encode(),
    "quoted newlines": rows('a.wav,"A dog\nbarks\r\n""twice"""').encode(),
    "duplicate ids": b"audiocap_id,file,caption\n1,a.wav,A dog\n1,a.wav,A bark\n1,b.wav,Rain\n",
    "Latin-1": rows("a.wav,Un chien aboie à côté").encode("latin-1"),
    "a caption of 10 MB": rows(f'a.wav,"{"dog " * 2_500_000}"').encode(),
    "a caption of 100 kB": rows(f"a.wav,{'dog ' * 25_000}").encode(),
    "a quote that never ends": rows(f'a.wav,"A dog{" barks" * 40_000}').encode(),
    "zero bytes": rows("a.wav,A\0B\0").encode(),
    "control characters": rows("a.wav,\x1b[31mred\x07\x08").encode(),
    "emoji and Arabic": rows("a.wav,🐕 كلب ينبح").encode(),
    "only spaces": rows("a.wav,   \t ").encode(),
    "a program": rows("a.wav,=cmd|'/C calc'!A0", "b.wav,__import__('os').system('touch pwned')").encode(),
    "markup": rows("a.wav,<script>alert(1)</script> {0} %s").encode(),
    "carriage returns": rows(end="\r").encode(),
    "too few and too many cells": rows("a.wav", "b.wav,Rain,x,y,z", ",,,,").encode(),
    "a path of 10 000 letters": rows(f"{'x/' * 5000}a.wav,A sound").encode(),
    "no start": b"start_time,file,caption\n1e999,a.wav,A dog\n-5,b.wav,Rain\nnan,a.wav,A bark\n",
    "events out of time": (
        "file,caption,kinds,counts,onsets,offsets\na.wav,A,rain,1,0,1\nb.wav,B,rain,1,nan,1\nb.wav,C,rain,1,0,inf\n"
        "b.wav,D,rain,1,3,1\nb.wav,E,rain,-1,0,1\nb.wav,F,rain,1;2,0,1\nb.wav,G,rain," + "9" * 5000 + ",0,1\n"
    ).encode(),
}
TABLES = {**REFUSED_TABLES, **USABLE_TABLES}


def write_tables(folder: Path, content: bytes) -> Path:
    """A corpus of two good sounds whose three tables hold `content`."""
    write_sounds(folder, {"a.wav": sound(), "b.wav": sound(tone() ** 2)})
    for split in ("train", "validation", "test"):
        (folder / f"{split}.csv").write_bytes(content)
    return folder


def write_mixed(folder: Path) -> Path:
    """All sounds in one corpus, in each split, between rows that lack something."""
    write_sounds(folder / "audio", SOUNDS)
    lines = ["file,caption"] + [f'"audio/{name}",Sound number {n}' for n, name in enumerate(SOUNDS)]
    lines += ["audio/gone.wav,A sound", "../../secret.wav,A sound", "audio/8 bit.wav,", "audio/8 bit.wav"]
    for split in ("train", "validation", "test"):
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder
