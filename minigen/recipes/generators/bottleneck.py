"""A narrower bottleneck for the shipped style model: the same networks, and codebooks with fewer entries.

    python -m minigen.recipes.generators.bottleneck mini-style 8 tokens/train

The conditioner is trained with 64 entries. One codebook then names the kind of sound already, so the likeness of the
output to the excerpt hardly rises with the number q of codebooks that pass. With 8 entries, made by k-means on the same
latents, it rises at each step (the model's card). The conditioner is not trained with the new codebooks: it learns to
spread over several tokens what one no longer holds, and the likeness at q = 1 rises again.

Writes the conditioner of data/generators/NAME, and enters the stage in its stages.json.
"""

import json
import sys
from pathlib import Path

from minigen.conditioning.styled_lm import FOLDER, StyledLM
from minigen.corpus.token_cache import TokenSet
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically
from minigen.engine.hub import ROOT
from minigen.recipes.generators.ship import BOTTLENECK, STAGES

CLIPS = 1024  # of the k-means start


def narrow(name: str, entries: int, tokens: str | Path, top: Path = ROOT) -> None:
    """Give the model data/generators/`name` codebooks of so many entries."""
    folder, clips = top / "data/generators" / name, TokenSet.open(tokens)
    codes, _ = clips.batch(range(min(CLIPS, len(clips))))  # [n, K, T]
    StyledLM.from_pretrained(folder).narrowed(entries, codes).style.save_pretrained(folder / FOLDER)
    stages = json.loads((folder / STAGES).read_text("utf-8"))
    stages.append({"generator": BOTTLENECK, "from": name, "entries": entries})
    write_atomically(folder / STAGES, json.dumps(stages, indent=1) + "\n")


if __name__ == "__main__":
    try:
        narrow(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    except MinigenError as error:
        sys.exit(f"minigen: {error}")
