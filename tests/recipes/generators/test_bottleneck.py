"""A narrower bottleneck for a shipped style model: other codebooks, the same networks, and a stage of its own."""

import json

import numpy as np
import standins
import torch

from minigen.conditioning.styled_lm import StyledLM
from minigen.corpus.token_cache import TokenSet
from minigen.recipes.generators import bottleneck
from minigen.recipes.generators.ship import STAGES, _commands


def test_a_narrowed_model_keeps_its_networks_and_lists_the_stage(tmp_path, monkeypatch):
    lm = standins.tiny_lm(1)
    K, V = lm.config.num_codebooks, lm.config.codebook_size
    codes = torch.randint(V, (12, K, 60), generator=torch.Generator().manual_seed(0))
    folder = tmp_path / "data/generators/styled"
    before = StyledLM.from_language_model(lm, codes)
    before.save_pretrained(folder, torch.float32)
    (folder / "pipeline.json").write_text('{"codec": "mini", "text": "mini", "generator": "style"}')
    settings = {"minutes": 1.0, "steps": 3, "batch_size": 2, "learning_rate": 0.004, "text_dropout": 0.1}
    (folder / STAGES).write_text(json.dumps([{"generator": "conditioner", "from": "mini", **settings}]))
    clips = TokenSet(codes.numpy().astype(np.int16), ["a"] * 12, [()] * 12, [[]] * 12, 50.0, V)
    monkeypatch.setattr(bottleneck.TokenSet, "open", lambda place: clips)
    bottleneck.narrow("styled", 4, "tokens", tmp_path)
    after = StyledLM.from_pretrained(folder)
    assert after.style.config.entries == 4 and before.style.config.entries == 64
    assert torch.equal(after.style.output.weight, before.style.output.weight.half().float())
    assert all(torch.equal(a, b) for a, b in zip(after.lm.parameters(), before.lm.parameters(), strict=True))
    lines = _commands("style", json.loads((folder / STAGES).read_text())).splitlines()
    assert "--generator conditioner --from mini " in lines[0] and lines[1].endswith("bottleneck styled 4 tokens/train")
