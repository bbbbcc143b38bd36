"""The benchmark: every row is there, both sides do the same work, and nothing in it depends on the clock."""

import json
from functools import partial

import pytest
import torch

from minigen.app import bench
from minigen.app.bench import Row, Sizes, alternate, compare_times, largest_new, run_bench
from minigen.codec import Codec, CodecConfig
from minigen.decoding.torch_step import Decoder
from minigen.guidance import guide
from minigen.lm import AudioLM, AudioLMConfig

TINY = Sizes(
    AudioLMConfig(codebook_size=20, width=32, layers=2, heads=4, ffn=48, memory_width=32), frames=6, long=12,
    captions=(1, 2), batch=2, rounds=1, clips=3, seconds=0.1, matrix=16, megabytes=1,
)  # fmt: skip
WANTED = [
    "machine: memory read", "machine: products in float32", "loading the compiled column", "generation, 1 caption",
    "generation, 2 captions", "generation, a column of 12 beside one of 6", "generation, largest tensor made in a step",
    "training step, 2 clips, float32", "tokenising a corpus", "import minigen, beyond torch",
]  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    codec = Codec(CodecConfig(width=8, blocks=1, latent=4, codebook_size=16)).eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "fast_bf16", lambda: False)
        return folder, run_bench(folder, TINY, codec=codec, say=lambda _: None)


def test_every_figure_is_in_the_table_and_in_the_file(measured):
    folder, rows = measured
    assert [row.what for row in rows] == WANTED
    assert all(row.ours > 0 for row in rows)
    page = (folder / "bench.md").read_text()
    assert all(f"| {name} |" in page for name in WANTED) and "transformers" in page and "threads 1 in" in page
    saved = json.loads((folder / "bench.json").read_text())
    assert [Row(**row) for row in saved["rows"]] == rows and saved["sizes"]["frames"] == 6


def test_both_sides_write_the_same_codes_and_start_from_the_same_loss(measured):
    notes = {row.what: row.note for row in measured[1]}
    assert notes["generation, 1 caption"] == notes["generation, 2 captions"] == "same codes: yes"
    assert notes["training step, 2 clips, float32"] == "same loss at the first step: yes"


def test_other_weights_would_be_noticed(monkeypatch):
    lm = AudioLM(TINY.model).eval()
    other = AudioLM(TINY.model).eval()
    monkeypatch.setattr(bench, "lm_to_musicgen", lambda _, whole=bench.lm_to_musicgen: whole(other))
    assert bench.generation_row(lm, 1, TINY).note == "same codes: NO"


def test_jobs_take_turns_and_the_first_turn_does_not_count():
    said = []
    times = alternate(2, lambda: said.append("a"), lambda: said.append("b"))
    assert said == ["a", "b"] * 3
    assert [len(job) for job in times] == [2, 2]


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    found = compare_times([[(1.0, 1.0), (2.0, 1.0), (1.0, 2.0)], [(4.0, 2.0), (6.0, 3.0), (5.0, 2.0)]], per=0.5)
    assert found == {"ours": 2.0, "theirs": 10.0, "ratio": 4.0, "cpu_ratio": 2.0}


def test_a_step_makes_nothing_as_large_as_the_cache_and_leaves_it_in_its_place():
    lm = AudioLM(TINY.model).eval()
    cache = lm.start(2, 400, torch.randn(1, 3, 32))
    decoder, place = Decoder(lm, cache, 2, partial(guide, scale=3.0)), cache.both.data_ptr()
    column = torch.zeros(1, 4, dtype=torch.int64)
    with torch.no_grad():
        first, *_, last = [largest_new(lambda: decoder.step(column)) for _ in range(400)]
    assert first == last < cache.both.nbytes / 100  # nothing grows with what was written
    assert cache.both.data_ptr() == place
    assert largest_new(cache.both.clone) == cache.both.nbytes  # and a copy would have been seen


def test_threads_are_left_as_they_were(measured):
    assert torch.get_num_threads() == 1
