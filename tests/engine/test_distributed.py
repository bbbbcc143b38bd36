"""Several processes: two that share every batch compute what one computes, and write it once."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sharing
import torch

from minigen.corpus import build_corpus
from minigen.engine import distributed
from minigen.engine.checkpoint import load_checkpoint
from minigen.engine.errors import MinigenError
from minigen.train import CHECKPOINT


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def launch(count: int, *argv) -> subprocess.CompletedProcess:
    """`accelerate launch`, as docs/scaling.md has it, on this machine's processor."""
    command = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", count, "--num_machines", 1,
               "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", free_port()]  # fmt: skip
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, "-m", *map(str, [*command, *argv])], capture_output=True, text=True,
                          env=environment)  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The same work in one process and in two: (folder of one, folder of two, output of the two)."""
    top = tmp_path_factory.mktemp("shared")
    clips = build_corpus(top / "clips", clips=24, seconds=1.0, workers=1, progress=False)
    alone = subprocess.run([sys.executable, sharing.__file__, top / "one", clips], capture_output=True, text=True)
    done = launch(2, sharing.__file__, top / "two", clips)
    for process in (alone, done):
        assert process.returncode == 0, process.stderr[-3000:]
    return top / "one", top / "two", done.stdout


def numbers(state, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of a nested state."""
    if isinstance(state, dict | list):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for key, item in items for k, v in numbers(item, f"{name}/{key}").items()}
    return {name: state} if isinstance(state, torch.Tensor) else {}


# the last norm of the model, or of the part that is trained
NORMS = ("/lm/norm.weight", "/lm/lm.norm.weight", "/lm/style.norm.weight")


@pytest.mark.parametrize("training", ["exact", "masked", "discrete", "latent", "cascader", "style", "conditioner"])
def test_two_processes_with_half_the_batch_each_end_with_the_weights_of_one(shared, training):
    """In float64, where only the order of the additions differs: weights, moments and average agree to 1e-10."""
    one, two = (load_checkpoint(folder / training / CHECKPOINT) for folder in shared[:2])
    ours, theirs = numbers(one), numbers(two)
    (norm,) = [name for name in ours if name in NORMS][:1]
    assert ours.keys() == theirs.keys() and ours[norm].dtype == torch.float64
    far = max((ours[name] - theirs[name]).abs().max().item() for name in ours)
    print("largest difference of a number in the checkpoint:", far)
    assert far < 1e-10
    moved = (ours[norm] - torch.ones(())).abs().max().item()
    assert moved > 1e-3  # it was trained at all


@pytest.mark.parametrize("training", ["lora", "prefer"])
def test_two_processes_train_the_adapter_of_one(shared, training):
    """Cross-entropy with the regulariser, and preferences; batches in parts, layers computed twice."""
    one, two = (load_checkpoint(folder / training / CHECKPOINT) for folder in shared[:2])
    ours, theirs = numbers(one), numbers(two)
    assert ours.keys() == theirs.keys() and all(".lora_" in name for name in one["lm"])
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-10
    assert max(value.abs().max() for name, value in one["lm"].items() if ".lora_B." in name) > 1e-3  # it was trained
    check_history(one["history"], two["history"], ("loss", "similarity", "valid", "valid_no_text"))


def test_two_processes_log_the_losses_of_one_the_regulariser_among_them(shared):
    one, two = (load_checkpoint(folder / "exact" / CHECKPOINT)["history"] for folder in shared[:2])
    assert [row["step"] for row in one] == [row["step"] for row in two] == [0, 4, 8, 12]
    assert any(row.get("similarity", 0) > 0 for row in two)
    check_history(one, two, ("loss", "similarity", "valid", "valid_no_text"))


@pytest.mark.parametrize("training", ["masked", "discrete"])
def test_two_processes_log_the_losses_of_one_where_clips_have_different_numbers_of_targets(shared, training):
    one, two = (load_checkpoint(folder / training / CHECKPOINT)["history"] for folder in shared[:2])
    check_history(one, two, ("loss", "valid", "valid_no_text"))


def check_history(one: list[dict], two: list[dict], names: tuple[str, ...]) -> None:
    for name in names:
        ours, theirs = ([row[name] for row in rows if name in row] for rows in (one, two))
        assert np.allclose(ours, theirs, rtol=1e-10, atol=1e-12, equal_nan=True), name


def test_two_processes_write_the_tokens_of_one_byte_for_byte(shared):
    for name in ("codes.npy", "rows.jsonl", "skipped.jsonl", "tokens.json"):
        assert (shared[0] / "tokens" / name).read_bytes() == (shared[1] / "tokens" / name).read_bytes(), name


def test_what_two_processes_do_is_said_and_written_once(shared):
    _, folder, said = shared
    assert said.count("validation loss") == said.count("training: ") == said.count("rows looked at") == 1
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    one = {str(path.relative_to(shared[0])) for path in shared[0].rglob("*") if path.is_file()}
    assert files == one
    with open(folder / "model" / "log.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "2"]
    parts = json.loads((folder / "model" / "pipeline.json").read_text())
    assert parts == {"codec": "mini", "text": "mini", "generator": "language_model"}


def test_alone_nothing_is_shared():
    rows = torch.randn(4, 3, requires_grad=True)
    assert distributed.count() == 1 and distributed.is_first() and distributed.share(4) == slice(0, 4)
    assert distributed.gather_rows(rows) is rows and distributed.gather_objects("a") == ["a"]
    assert torch.equal(distributed.total(rows), rows) and not distributed.total(rows).requires_grad


def test_a_batch_that_cannot_be_shared_evenly_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    assert distributed.share(6) == slice(2, 4) and not distributed.is_first()
    with pytest.raises(MinigenError, match="batch of 16 cannot be shared by 3"):
        distributed.check_shares(16)
    assert [list(part) for part in distributed.parts_of(range(5), 2)] == [[0, 1], [2, 3], [4]]


def test_the_documentation_starts_several_processes_as_these_tests_do():
    scaling = (Path(__file__).resolve().parents[2] / "docs" / "scaling.md").read_text()
    assert "accelerate launch --multi_gpu" in scaling
