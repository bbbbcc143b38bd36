"""Reader of ESC-10: real recordings in class folders, which the recipes train and test on.

    001 - Dog bark/1-100032-A.ogg    label "dog bark", kind "dog_bark", fold "1"
    003 - Sea waves/4-182395-A.ogg   label "sea waves", kind "waves", fold "4"

ESC-10 has 400 recordings of 5 s in ten classes and five folds. The file name is fold-source-take; recordings of one
source are in one fold, so a fold can be held out. Any folder of class folders with such names is read in the same way.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from minigen.audio import AUDIO_SUFFIXES, load_audio
from minigen.corpus.clip import KINDS
from minigen.corpus.synthesis.captions import kind_of_label
from minigen.engine.errors import MinigenError

CITATION = """ESC-10 (K. J. Piczak, "ESC: Dataset for environmental sound
classification", 2015, doi 10.1145/2733373.2806390)"""


@dataclass(frozen=True)
class Recording:
    """One file. label: name of its class folder without the number. kind: the corpus's kind of that name, "" if none.

    fold: first character of the file name.
    """

    path: Path
    label: str
    kind: str
    fold: str

    def load(self) -> Tensor:
        """Waveform float32 [1, 1, samples] at 16 kHz.

        Raises:
            AudioError: the file is damaged or silent.
        """
        return load_audio(self.path)


def list_recordings(folder: str | Path) -> list[Recording]:
    """All recordings in class folders, in the order of their paths; no file is opened."""
    paths = sorted(path for path in Path(folder).glob("*/*") if path.suffix.lower() in AUDIO_SUFFIXES)
    found = []
    for path in paths:
        label = path.parent.name.split(" - ")[-1].lower()
        found.append(Recording(path, label, kind_of_label(path.parent.name) or "", path.name[0]))
    return found


def recordings_of_known_kinds(folder: str | Path) -> list[Recording]:
    """The recordings whose class folder is named after a kind of the corpus.

    Raises:
        MinigenError: there are none.
    """
    found = [recording for recording in list_recordings(folder) if recording.kind]
    if not found:
        raise MinigenError(f"no class folder in {folder} is named after a kind ({', '.join(KINDS)}). Rename them.")
    return found
