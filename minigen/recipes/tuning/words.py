"""Learnt words: are their sounds closer to the recording than those of plain captions, and do they combine?

    python -m minigen.recipes.tuning.words ESC10        writes data/tuning/words.csv

ESC10 is a folder of recordings in class folders (`minigen.recipes.esc10`). One recording of each known kind is learnt
as "<x>" (`minigen.conditioning.inversion.invert`), begun from the caption that the judge finds closest. Likeness is the
cosine of the judge's embeddings of a sound and the recording, the mean over `SOUNDS` sounds. It is measured for the
plain caption of the kind, the caption that the word began as, and the word. Then the tagger listens for rain in the
sounds of "<x> while rain falls".
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from minigen.audio import fit_length
from minigen.conditioning.inversion import EncoderWithWords, closest_caption, invert, plain_captions
from minigen.display.tables import padded_table
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_rows
from minigen.engine.hub import ROOT
from minigen.evaluation.clap import load_judge, load_tagger
from minigen.generate import TextToAudio
from minigen.metrics import bootstrap_interval
from minigen.recipes.esc10 import Recording, recordings_of_known_kinds

FIGURES = ROOT / "data/tuning/words.csv"
SOUNDS, SECONDS, SEED = 6, 4.0, 0
WITH_RAIN, RAIN = "<x> while rain falls", "rain"


def one_of_each_kind(folder: str | Path) -> list[Recording]:
    """The first recording of each known kind."""
    found: dict[str, Recording] = {}
    for recording in recordings_of_known_kinds(folder):
        found.setdefault(recording.kind, recording)
    return list(found.values())


def measure(tta: TextToAudio, wav: Tensor, kind: str, judge, tagger) -> dict[str, object]:
    """Learn one recording [1, 1, samples] at the codec's rate, and measure the word's sounds."""
    with torch.no_grad():
        codes, wanted = tta.codec.encode(wav), judge.embed_audio(wav)[0]  # [1, K, T], [E]
    like = closest_caption(judge, wav, tta.codec.sample_rate)
    word = invert(tta.lm, tta.encoder, codes, like=like, progress=False, seed=SEED)
    speaking = TextToAudio(tta.codec, EncoderWithWords(tta.encoder, [word]), tta.generator)
    rain = [kind == RAIN for kind in tagger.kinds]
    heard = tagger.probabilities(sounds(speaking, WITH_RAIN))[:, torch.tensor(rain)] >= 0.5  # [n, 1]
    return {
        "kind": kind, "like": like, "loss_before": word.loss[0], "loss_after": word.loss[1],
        "plain": likeness(tta, plain_captions()[kind], wanted, judge), "began": likeness(tta, like, wanted, judge),
        "word": likeness(speaking, word.word, wanted, judge),
        "rain": float(heard.float().mean()),
    }  # fmt: skip


def likeness(tta: TextToAudio, caption: str, wanted: Tensor, judge) -> float:
    """Mean cosine of the sounds of a caption to a recording's embedding [E]."""
    return float((judge.embed_audio(sounds(tta, caption)) @ wanted).mean())


def sounds(tta: TextToAudio, caption: str) -> Tensor:
    """`SOUNDS` sounds [n, 1, samples] of one caption."""
    return tta.generate([caption] * SOUNDS, SECONDS, seed=SEED)


def main(folder: str) -> None:
    """Measure one recording of each kind, print the rows and write them."""
    tta, judge, tagger = TextToAudio.from_pretrained("mini"), load_judge(), load_tagger()
    rows = []
    for recording in one_of_each_kind(folder):
        wav = fit_length(recording.load(), round(SECONDS * tta.codec.sample_rate))
        rows.append(measure(tta, wav, recording.kind, judge, tagger))
        print(padded_table(["", ""], [[name, str(value)] for name, value in rows[-1].items()]), flush=True)
    write_rows(FIGURES, rows)
    print(f"{summary(rows)}\n{FIGURES}")


def summary(rows: list[dict]) -> str:
    """The differences of the likeness with their intervals over recordings, and the share with rain, in sentences."""
    told = []
    for name, caption in (("plain", "the plain caption of the kind"), ("began", "the caption that it began as")):
        gaps = [float(row["word"]) - float(row[name]) for row in rows]
        low, high = bootstrap_interval(gaps, seed=0)
        told.append(f"less that of {caption} {sum(gaps) / len(gaps):+.3f} [{low:+.3f}, {high:+.3f}]")
    others = [float(row["rain"]) for row in rows if row["kind"] != RAIN]
    return (
        f"Cosine of the word's sounds to the recording, {len(rows)} recordings: {'; '.join(told)}. Rain is heard in "
        f'{sum(others) / len(others):.0%} of the sounds of "{WITH_RAIN}", the recording of rain left out.'
    )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except MinigenError as error:
        sys.exit(f"minigen: {error}")
