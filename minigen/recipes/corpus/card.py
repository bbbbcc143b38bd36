"""Card of the built-in corpus: spectrograms of real and synthesised sounds, and a classifier's confusion matrix.

    recordings --train_listener--> confusion matrix ─┐
    recordings, `alone` --mel_db--> one PNG per kind ├─► card.md
    captions, AudioCaps' captions --> shared words  ─┘

Each picture of recordings names their authors. The recordings themselves are not part of the card.
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
from minigen.display.tables import markdown_table
from minigen.engine.files import write_atomically
from minigen.recipes.corpus.real_listener import (
    Recordings,
    alone,
    confusion,
    fold_accuracies,
    read_recordings,
    train_listener,
)
from minigen.recipes.esc10 import CITATION
from minigen.recipes.judge.data import SECONDS

REAL, MADE = 2, 3  # real and synthesised sounds in a picture
COLOURS = 48  # in the palette of a picture: half the bytes, without a visible difference
LICENCE = f"""The real recordings are from {CITATION}, licensed CC BY 3.0 as a whole. Its clips come from
freesound.org under CC0 or CC BY, by the authors named under each picture. Only their spectrograms are shown here."""


def make_card(
    folder: str | Path, real: str | Path | None = None, audiocaps: str | Path | None = None, clips: int = 40,
    seed: int = 10, progress: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Write card.md and one PNG per kind to `folder`; returns the figures.

    Args:
        folder (str or Path): output folder.
        real (str or Path): folder of class folders of recordings (ESC-10), for the classifier.
        audiocaps (str or Path): folder with AudioCaps' train.csv, whose vocabulary is compared.
        clips (int): number of synthesised clips of each kind that are classified.
        seed (int): seed of these clips.
        progress (bool): show a progress bar.

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
its {len(KINDS)} kinds of event. Pictures are log-mel spectrograms: seconds on the x axis, kHz on the y axis, brighter
is louder (the colours span 70 dB), all sounds at the same peak.
"""


def _listened(recordings: Recordings, clips: int, seed: int) -> tuple[dict[str, float], list[str]]:
    """Figures of the classifier, and their lines of the card."""
    folds = fold_accuracies(recordings)
    table = confusion(train_listener(recordings), clips, seed)
    share = table.diagonal() / table.sum(1)
    figures = {
        "accuracy on real recordings of a held-out fold": sum(folds.values()) / len(folds),
        "accuracy on synthesised clips": float(table.diagonal().sum() / table.sum()),
        "accuracy on synthesised clips, worst kind": float(share.min()),
    }
    classified = [(f"**{kind}**", *row.tolist()) for kind, row in zip(recordings.kinds, table, strict=True)]
    by_fold = ", ".join(f"fold {fold}: {value:.3f}" for fold, value in folds.items())
    lines = [
        "## A classifier that was trained on real recordings only", "",
        f"`minigen.recipes.corpus.real_listener`, trained on {len(recordings.labels)} real recordings and on no "
        f"synthesised sound. Measured on real recordings of a held-out fold ({by_fold}), and on {clips} synthesised "
        f"clips of each kind, one event each, with the levels, distances and rooms of the corpus (seed {seed}):", "",
        markdown_table(("figure", "value"), [(name, f"{value:.4f}") for name, value in figures.items()]), "",
        markdown_table(("synthesised, classified as", *recordings.kinds), classified), "",
    ]  # fmt: skip
    return figures, lines


def _captions(figures: dict, audiocaps: str | Path | None, seed: int) -> list[str]:
    """Lines about the captions: number of wordings, and share of their words that occur in AudioCaps."""
    written = [describe_clip(seed, "train", i, SECONDS)[1] for i in range(2000)]
    fewest = min(len(_wordings(alone_scene(kind, seed), seed)) for kind in KINDS)
    lines = ["## Captions", "", f"One scene with one event has at least {fewest} wordings, whatever its kind.", ""]
    if audiocaps:
        known = words_of((Path(audiocaps) / "train.csv").read_text("utf-8"))
        said = [word for text in written for word in sorted(words_of(text))]
        share = figures["words of captions that AudioCaps uses"] = float(np.mean([word in known for word in said]))
        strange = ", ".join(sorted(set(said) - known)) or "none"
        lines[2] += (
            f" Of the words of {len(written)} captions, counted once per caption, {share:.1%} occur in AudioCaps' "
            f"training captions. Words that do not: {strange}."
        )
    return [*lines, "Some of them:", "", *(f"- {text}" for text in written[:8]), ""]


def words_of(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower()))


def alone_scene(kind: str, seed: int) -> Scene:
    """The first scene that holds one event of this kind."""
    return alone(kind, 0, seed)[0]


def _wordings(scene: Scene, seed: int) -> list[str]:
    return paraphrases(scene, np.random.default_rng(seed), 40)


def _entry(folder: Path, kind: str, recordings: Recordings | None, seed: int) -> list[str]:
    """Write the picture of a kind; returns its lines of the card, with the authors of the recordings."""
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
    """Title, author and licence of a recording, from the README of the data; the file name where it is not listed."""
    readme = path.parent.parent / "README.md"
    listed = readme.read_text("utf-8") if readme.is_file() else ""
    found = re.search(
        re.escape(path.name) + r"\].*?clip derived from \[(.*?)\]\(.*?\) by \*(.*?)\* \(\[(.*?)\]", listed
    )
    return f'{path.name} from "{found[1]}" by {found[2]} ({found[3]})' if found else path.name


def kind_png(real: Sequence[Tensor], made: Sequence[Tensor]) -> bytes:
    """PNG with a small palette: spectrograms side by side at the same peak, real ones first, then synthesised ones."""
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
