"""Fine-tuning to a kind of sound that the corpus lacks: how much of it is learnt, and how much else is forgotten.

    python -m minigen.recipes.tuning.new_kind record build/whistles        recordings with captions, of slide whistles
    minigen finetune build/whistles --rehearse CORPUS ... --out build/whistled
    python -m minigen.recipes.tuning.new_kind measure build/whistled CORPUS

`measure` writes data/tuning/new_kind.csv. A detector counts the new kind: a linear probe (`minigen.evaluation.probe`)
on the judge's embeddings, fitted to other slide whistles and clips of the corpus, all after the codec, and tested on
further ones of both. It hears the sounds for captions of the new kind, before and after, with the same seeds. The
tagger hears the sounds for test captions of the corpus, before and after. The exact commands of the figures are in
data/tuning/card.md.
"""

import csv
import io
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minigen.audio import save_audio
from minigen.corpus import read_corpus
from minigen.corpus.subsets import load_some
from minigen.course.new_kind import CAPTIONS, slide_whistles
from minigen.display.tables import padded_table
from minigen.engine.errors import MinigenError
from minigen.engine.files import read_rows, write_atomically, write_rows
from minigen.engine.hub import ROOT
from minigen.evaluation.change import Change, measure_changes
from minigen.evaluation.clap import load_judge, load_tagger
from minigen.evaluation.measure import Yardstick, generate_for
from minigen.evaluation.probe import Probe, train_probe
from minigen.generate import TextToAudio

FIGURES = ROOT / "data/tuning/new_kind.csv"
RECORDINGS = 100  # of which a part is held out by `minigen finetune`
CLIPS = 40  # sounds of the new kind, and captions of the corpus, that are measured before and after
HEARD = 0.5  # probability from which the detector hears the kind
SEEDS = {"recordings": 0, "detector": 1, "test of the detector": 2}  # no recording is in two of them


def record(folder: Path) -> None:
    """Write the recordings, each with one of the captions, as a folder that `minigen finetune` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file_name", "text"])
    for number, wav in enumerate(slide_whistles(RECORDINGS, SEEDS["recordings"])):
        save_audio(folder / f"{number:02d}.wav", wav, 16000)
        rows.writerow([f"{number:02d}.wav", CAPTIONS[number % len(CAPTIONS)]])
    write_atomically(folder / "metadata.csv", text.getvalue())


class Detector:
    """The linear probe with the judge that it stands on.

    hits: share of unseen recordings of the kind that it hears. false_alarms: share of unseen clips of the corpus.
    """

    def __init__(self, codec, judge, data: str):
        self.judge = judge
        train, test = (load_some(read_corpus(data, split, seconds=4.0), CLIPS, 1)[1] for split in ("train", "test"))
        vectors = [
            judge.embed_audio(_through(codec, wavs), codec.sample_rate)
            for wavs in (slide_whistles(CLIPS, SEEDS["detector"]), torch.cat(train),
                         slide_whistles(CLIPS, SEEDS["test of the detector"]), torch.cat(test))
        ]  # fmt: skip
        self.probe: Probe = train_probe(*vectors[:2])
        self.hits, self.false_alarms = (float((self._probabilities(each) > HEARD).mean()) for each in vectors[2:])

    def _probabilities(self, vectors: Tensor) -> np.ndarray:
        return self.probe.probabilities(vectors)

    def share(self, wavs: Tensor) -> float:
        """Share of sounds [n, 1, samples] at 16 kHz in which it hears the kind."""
        return float((self._probabilities(self.judge.embed_audio(wavs)) > HEARD).mean())


def _through(codec, wavs: Tensor) -> Tensor:
    """Sounds after encoding and decoding, so that the probe does not learn to hear the codec."""
    return torch.cat([codec.decode(codec.encode(part)) for part in wavs.split(8)])


def compare(adapter: Path, data: str, base: str = "mini", clips: int = CLIPS) -> tuple[dict[str, float], Change]:
    """Figures of the new kind by name, and the change of the corpus' recall."""
    judge, tagger = load_judge(), load_tagger()
    models = [TextToAudio.from_pretrained(base), TextToAudio.from_pretrained(base, adapter=str(adapter))]
    detector = Detector(models[0].codec, judge, data)
    asked = [CAPTIONS[i % len(CAPTIONS)] for i in range(clips)]
    known, real = load_some(read_corpus(data, "test", seconds=4.0), clips)
    _, others = load_some(read_corpus(data, "validation", seconds=4.0), clips)
    yardstick = Yardstick(judge, tagger, others)
    figures = {"detector_hits": detector.hits, "detector_false_alarms": detector.false_alarms}
    rows = []
    for name, tta in zip(("before", "after"), models, strict=True):
        figures[name] = detector.share(generate_for(tta, asked, label=f"new kind, {name}"))
        wavs = generate_for(tta, [clip.caption for clip in known], label=f"corpus, {name}")
        figures[f"unasked_{name}"] = detector.share(wavs)  # heard where another sound was asked for
        rows.append(yardstick.measure(name, wavs, known, torch.cat(real)))
    return figures, measure_changes(rows[:1], rows[1:], yardstick.reference)["recall"]


def measure(adapter: Path, data: str) -> None:
    """Measure a fine-tuned adapter, print the figures and write them to data/tuning/new_kind.csv."""
    if not (adapter / "log.csv").is_file():
        raise MinigenError(f"{adapter} holds no log.csv. Name the folder of a finished run of minigen finetune.")
    figures, recall = compare(adapter, data)
    last = read_rows(adapter / "log.csv")[-1]
    row: dict[str, object] = {"clips": CLIPS, "steps": last["step"], "minutes": last["minutes"], **figures}
    for name, each in zip(("recall_before", "recall_after", "recall_change"), recall, strict=True):
        row |= {name: each.mean, f"{name}_low": each.low, f"{name}_high": each.high}
    write_rows(FIGURES, [row])
    print(padded_table(["figure", "value"], [[name, str(value)] for name, value in row.items()]))
    print(FIGURES)


def main() -> None:
    """Run what the command line names."""
    match sys.argv[1:]:
        case ["record", folder]:
            record(Path(folder))
        case ["measure", adapter, data]:
            measure(Path(adapter), data)
        case _:
            print(__doc__)


if __name__ == "__main__":
    main()
