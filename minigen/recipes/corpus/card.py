"""The card of the built-in corpus: one picture a kind, real beside synthesised, and what a listener makes of them.

    recordings --train_listener--> confusion table  ─┐
    recordings, `alone` --mel_db--> one PNG a kind   ├─► card.md
    captions, AudioCaps' captions --> shared words  ─┘

Pictures of recordings name their authors; the recordings themselves are not part of the card.
"""

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from minigen.audio import SAMPLE_RATE, fit_length, load_audio, peak_normalize
from minigen.corpus.clip import KINDS
from minigen.corpus.synthesis.builtin import describe_clip
from minigen.corpus.synthesis.captions import paraphrases
from minigen.corpus.synthesis.scenes import Scene
from minigen.display.plots import LOUD_DB, QUIET_DB, mel, mel_db
from minigen.engine.files import write_atomically
from minigen.recipes.corpus.real_listener import (
    Recordings,
    alone,
    confusion,
    fold_accuracies,
    read_recordings,
    train_listener,
)
from minigen.recipes.judge.data import SECONDS

REAL, MADE = 2, 3  # sounds of each sort in a picture
COLOURS = 48  # of a picture's palette: half the bytes, and nothing to be seen
LICENCE = """The real recordings are of ESC-10 (K. J. Piczak, "ESC: Dataset for environmental sound classification",
2015, doi 10.1145/2733373.2806390), licensed CC BY 3.0 as a whole; its clips come from freesound.org under CC0 or CC BY,
by the authors named under each picture. Only their spectrograms are shown here."""


def make_card(
    folder: str | Path, real: str | Path | None = None, audiocaps: str | Path | None = None, clips: int = 40,
    seed: int = 10, progress: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Write card.md and one PNG a kind to `folder`; returns the figures.

    real: folder of class folders of recordings (ESC-10), whose listener names `clips` synthesised clips of each kind it
    knows, drawn with `seed`. audiocaps: folder with AudioCaps' train.csv, whose vocabulary is compared.

    Raises:
        MinigenError: `real` has no class folder named after a kind, or all its recordings are of one fold.
    """
    folder, figures, text = Path(folder), {}, [_head()]
    folder.mkdir(parents=True, exist_ok=True)
    recordings = read_recordings(real) if real else None
    if recordings:
        figures, lines = _listened(recordings, clips, seed)
        text += lines
    text += _captions(figures, audiocaps, seed)
    text += ["## The kinds", "", *([LICENCE, ""] if recordings else [])]
    for kind in tqdm(KINDS, "pictures", disable=not progress, leave=False):
        text += _entry(folder, kind, recordings, seed)
    write_atomically(folder / "card.md", "\n".join(text))
    return figures


def _head() -> str:
    return f"""# corpus

Made by `minigen corpus-card`. The built-in corpus is synthesised by minigen from a seed, at any size; this page shows
what it sounds like, {len(KINDS)} kinds of event in all. Pictures are log-mel spectrograms: seconds across, kHz up,
brighter is louder (the colours span 70 dB), each sound at the same peak.
"""


def _listened(recordings: Recordings, clips: int, seed: int) -> tuple[dict[str, float], list[str]]:
    """The listener's figures, and the lines of the card that tell them."""
    folds = fold_accuracies(recordings)
    table = confusion(train_listener(recordings), clips, seed)
    share = table.diagonal() / table.sum(1)
    figures = {
        "real recordings of an unheard fold named rightly": sum(folds.values()) / len(folds),
        "synthesised clips named rightly": float(table.diagonal().sum() / table.sum()),
        "the same, weakest kind": float(share.min()),
    }
    told = ", ".join(f"fold {fold}: {value:.3f}" for fold, value in folds.items())
    lines = [
        "## What a listener makes of them who knows only real recordings", "",
        f"`minigen.recipes.corpus.real_listener`, trained on {len(recordings.labels)} real recordings and on nothing "
        f"synthesised. On real recordings of a fold it has not heard ({told}); on {clips} synthesised clips of "
        f"each kind, alone, at the levels, distances and in the rooms of the corpus (seed {seed}):", "",
        "| figure | value |", "|---|---|", *(f"| {name} | {value:.4f} |" for name, value in figures.items()), "",
        "| synthesised, called | " + " | ".join(recordings.kinds) + " |", "|---" * (len(recordings.kinds) + 1) + "|",
        *(f"| **{kind}** | " + " | ".join(map(str, row.tolist())) + " |"
          for kind, row in zip(recordings.kinds, table, strict=True)), "",
    ]  # fmt: skip
    return figures, lines


def _captions(figures: dict, audiocaps: str | Path | None, seed: int) -> list[str]:
    """Lines about the captions: how many wordings, and how many of their words AudioCaps knows."""
    written = [describe_clip(seed, "train", i, SECONDS)[1] for i in range(2000)]
    fewest = min(len(_wordings(alone_scene(kind, seed), seed)) for kind in KINDS)
    lines = ["## Captions", "", f"One scene with one event has at least {fewest} wordings, whatever its kind.", ""]
    if audiocaps:
        known = words_of((Path(audiocaps) / "train.csv").read_text("utf-8"))
        said = [word for text in written for word in sorted(words_of(text))]
        share = figures["words of captions that AudioCaps uses"] = float(np.mean([word in known for word in said]))
        strange = ", ".join(sorted(set(said) - known)) or "none"
        lines[2] += (
            f" Of the words of {len(written)} captions, each counted once a caption, {share:.1%} occur in AudioCaps' "
            f"training captions; those that do not: {strange}."
        )
    return [*lines, "Some of them:", "", *(f"- {text}" for text in written[:8]), ""]


def words_of(text: str) -> set[str]:
    """The words of a text, in small letters."""
    return set(re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower()))


def alone_scene(kind: str, seed: int) -> Scene:
    """The first scene that holds this kind alone."""
    return alone(kind, 0, seed)[0]


def _wordings(scene: Scene, seed: int) -> list[str]:
    return paraphrases(scene, np.random.default_rng(seed), 40)


def _entry(folder: Path, kind: str, recordings: Recordings | None, seed: int) -> list[str]:
    """Draw the picture of a kind; the lines that show it, with the authors of the recordings."""
    paths = _examples(kind, recordings) if recordings else []
    samples = int(SECONDS * SAMPLE_RATE)
    real = [fit_length(load_audio(path), samples) for path in paths]
    made = [torch.from_numpy(alone(kind, i, seed)[1]) for i in range(MADE if real else MADE + REAL)]
    (folder / f"{kind}.png").write_bytes(kind_png(real, made))
    credits = "; ".join(filter(None, map(_credit, paths)))
    left = f"Left, real: {credits}. Right, synthesised." if real else "Synthesised."
    return [f"### {kind}", "", f"![{kind}]({kind}.png)", "", left, ""]


def _examples(kind: str, recordings: Recordings) -> list[Path]:
    """The first recording of this kind, and the one in the middle of the list."""
    label = recordings.kinds.index(kind) if kind in recordings.kinds else -1
    paths = [path for path, own in zip(recordings.paths, recordings.labels.tolist(), strict=True) if own == label]
    return [paths[i * len(paths) // REAL] for i in range(REAL)] if len(paths) >= REAL else []


def _credit(path: Path) -> str:
    """The line of the data's own README about this recording: its title, author and licence."""
    readme = path.parent.parent / "README.md"
    listed = readme.read_text("utf-8") if readme.is_file() else ""
    found = re.search(
        re.escape(path.name) + r"\].*?clip derived from \[(.*?)\]\(.*?\) by \*(.*?)\* \(\[(.*?)\]", listed
    )
    return f'{path.name} from "{found[1]}" by {found[2]} ({found[3]})' if found else path.name


def kind_png(real: Sequence[Tensor], made: Sequence[Tensor]) -> bytes:
    """Spectrograms side by side, each at the same peak: real ones, then synthesised ones; PNG with a small palette."""
    from matplotlib.figure import Figure
    from PIL import Image

    sounds = [*real, *made]
    figure = Figure(figsize=(1.75 * len(sounds), 1.5), dpi=80, layout="constrained")
    for i, (axes, wav) in enumerate(zip(figure.subplots(1, len(sounds), squeeze=False)[0], sounds, strict=True)):
        axes.imshow(
            mel_db(peak_normalize(wav.reshape(1, 1, -1), 0.6)), origin="lower", aspect="auto", cmap="magma",
            vmin=QUIET_DB, vmax=LOUD_DB, extent=(0, SECONDS, 0, mel(SAMPLE_RATE / 2)),
        )  # fmt: skip
        ticks = (0, 500, 2000, 8000) if i == 0 else ()
        axes.set(xticks=(0, 2, 4), yticks=[mel(hz) for hz in ticks], yticklabels=[f"{hz / 1000:g}" for hz in ticks])
        axes.set_title("real" if i < len(real) else "synthesised", fontsize=7, pad=2)
        axes.tick_params(labelsize=6, length=2, pad=1)
    file, small = BytesIO(), BytesIO()
    figure.savefig(file, format="png")
    Image.open(file).convert("RGB").quantize(COLOURS).save(small, format="png", optimize=True)
    return small.getvalue()
