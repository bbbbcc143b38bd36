"""The teacher of the text encoder: vectors of captions from a larger sentence encoder, computed once and stored.

    captions --all-MiniLM-L6-v2--> token states --mean over tokens, length 1--> [captions, 384], stored in a file

all-MiniLM-L6-v2 (22.7 M parameters, 1.2 billion pairs of sentences, Apache 2.0) is needed for this training only: the
text encoder learns from its similarities (`train.py`), and none of its weights is copied.

Sources: Sentence-BERT (arXiv 1908.10084), MiniLM (2002.10957), distilling similarities (1904.05068).
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.engine.errors import MinigenError
from minigen.engine.weights import no_loading_bar
from minigen.regularizer import pool

NAME = "sentence-transformers/all-MiniLM-L6-v2"
SHA_256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of all-MiniLM-L6-v2's model.safetensors
BATCH = 64


@dataclass(frozen=True)
class Teacher:
    """A sentence encoder and the vectors that it has computed.

    folder: config.json, model.safetensors and tokenizer.json of the teacher, loaded by `transformers`' Auto classes.
    kept: folder for the vectors, one safetensors file for each list of captions.
    """

    folder: str | Path
    kept: Path
    progress: bool = True

    def teach(self, captions: list[str]) -> Tensor:
        """Vectors of the captions, float32 [captions, D] of length 1; computed once and stored in float16.

        The file name is a hash of captions and teacher, so other captions or another teacher give another file. A
        teacher whose weights are not those of all-MiniLM-L6-v2 is accepted, with a warning that names both.

        Raises:
            MinigenError: no teacher in the folder.
        """
        from safetensors.torch import load_file, save_file

        digest = hashlib.sha256("\n".join([fingerprint(self.folder), *captions]).encode()).hexdigest()
        file = self.kept / f"{digest[:16]}.safetensors"
        if not file.is_file():
            self.kept.mkdir(parents=True, exist_ok=True)
            save_file({"vectors": self.ask(captions).half()}, file.with_suffix(".part"))
            file.with_suffix(".part").replace(file)
        return load_file(file)["vectors"].float()  # read back, so that new and stored vectors have the same bits

    def ask(self, captions: list[str], pooling: str = "mean") -> Tensor:
        """Compute pooled states of length 1, [captions, D]. pooling: "mean", as the teacher was trained, or "max"."""
        return embed(self.folder, captions, self.progress, pooling)


@dataclass(frozen=True)
class View:
    """Coordinates of the teacher's vectors: the mean of the captions is the origin, their main directions are the axes.

        view(v) = (v - mean) @ axes, scaled to length 1

    All captions of sounds have a common part ("a sound of ..."), which raises every cosine. Without it, cosines
    distinguish clips better. mean: [1, D]. axes: [D, width], columns of length 1 or 0.
    """

    mean: Tensor
    axes: Tensor

    @staticmethod
    def of(vectors: Tensor, width: int) -> View:
        """Fit the view to vectors [captions, D] by principal component analysis."""
        mean = vectors.mean(0, keepdim=True)
        directions = torch.linalg.eigh((vectors - mean).T @ (vectors - mean)).eigenvectors.flip(1)[:, :width]
        return View(mean, F.pad(directions, (0, width - directions.shape[1])))

    def __call__(self, vectors: Tensor) -> Tensor:
        """[captions, D] -> [captions, width] of length 1."""
        return F.normalize((vectors - self.mean) @ self.axes, dim=1)


def fingerprint(folder: str | Path) -> str:
    """SHA-256 of the teacher's weights; warns if they are not those of all-MiniLM-L6-v2.

    Raises:
        MinigenError: the folder has no model.safetensors.
    """
    weights = Path(folder) / "model.safetensors"
    if not weights.is_file():
        raise MinigenError(f"no teacher: {weights} does not exist. Name a folder with the files of {NAME}.")
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA_256:
        logging.getLogger(__name__).warning(
            "%s has SHA-256 %s..., not the %s... of %s: the figures will differ",
            weights,
            found[:12],
            SHA_256[:12],
            NAME,
        )
    return found


@torch.no_grad()
def embed(folder: str | Path, captions: list[str], progress: bool = True, pooling: str = "mean") -> Tensor:
    """Pooled states of length 1, [captions, D]; captions of similar length are encoded together."""
    from tqdm import tqdm
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with no_loading_bar():
        model = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
    vectors = torch.empty(len(captions), model.config.hidden_size)
    with tqdm(total=len(captions), disable=not progress, unit="caption", desc="teacher") as bar:
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            batch = tokenizer([captions[i] for i in rows], padding=True, truncation=True, return_tensors="pt")
            states = model(**batch).last_hidden_state
            vectors[rows] = F.normalize(pool(states, batch["attention_mask"].bool(), pooling), dim=1)
            bar.update(len(rows))
    return vectors
