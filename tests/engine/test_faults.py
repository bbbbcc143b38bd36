"""Faults: killed at any moment, a full disk, a loss that is no number, a checkpoint from somebody else."""

import csv
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from standins import HashCodec
from test_train import SIZES, WORDS, Words, run, tokens

from minigen.corpus import build_corpus, read_corpus, tokenize
from minigen.engine.checkpoint import load_checkpoint, save_checkpoint, save_tensors
from minigen.engine.errors import MinigenError
from minigen.engine.files import (
    append_row,
    atomic_file,
    read_rows,
    remove_stale_parts,
    try_lock,
    write_atomically,
    write_rows,
)
from minigen.engine.weights import read_config, read_tensors, write_model
from minigen.lm import AudioLM
from minigen.train import CHECKPOINT, CrossEntropyObjective, TrainConfig, Trainer, train

KILLS = int(os.environ.get("MINIGEN_KILLS", 8))  # of each job; 50 takes some minutes


@contextmanager
def full_disk(size: int):
    """No file may grow beyond `size` bytes: the system refuses the write as it does on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


# killed


@pytest.fixture(scope="module")
def killed_jobs(tmp_path_factory) -> dict:
    """Results of every job, killed at KILLS moments drawn from a seed: see killing.py."""
    script, top = Path(__file__).resolve().parents[1] / "killing.py", tmp_path_factory.mktemp("killed")
    done = subprocess.run([sys.executable, script, top, str(KILLS), "0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("job", "least"),
    [
        ("train", 100),
        ("train-discrete", 100),
        ("train-preferences", 100),
        ("train-masked", 100),
        ("train-latent", 100),
        ("tokenize", 4),
        ("corpus", 20),
        ("codec", 2),
        ("tagger", 2),
    ],
)
def test_a_job_killed_again_and_again_ends_bit_for_bit_as_one_left_in_peace(job, least, killed_jobs):
    """Model, average, optimiser, schedule, history and log; codes, rows and state; sounds and tables: all of it.

    Of the recipes, which go on from the same kind of checkpoint, the weights that they leave behind.
    """
    found = killed_jobs[job]
    assert found["killed"] == KILLS and found["different"] == [] and found["compared"] >= least


def test_what_killed_writers_left_behind_is_swept_and_that_of_living_ones_is_not(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    for process in (dead.stdout.strip(), os.getpid()):
        (tmp_path / f".model.safetensors.{process}.part").mkdir()
        (tmp_path / f".model.safetensors.{process}.part" / "model.safetensors").touch()
        (tmp_path / f".clip.wav.{process}.part").touch()
    (tmp_path / ".notes.part").touch()
    remove_stale_parts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f".model.safetensors.{os.getpid()}.part",
        f".clip.wav.{os.getpid()}.part",
        ".notes.part",
    }


def test_a_killed_process_frees_its_lock(tmp_path):
    hold = "import sys, time; from minigen.engine.files import try_lock; held = try_lock(sys.argv[1]); "
    hold += "print(held is not None, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "lock")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"True\n"
        assert try_lock(tmp_path / "lock") is None
        holder.kill()
    held = try_lock(tmp_path / "lock")
    assert held is not None
    held.release()


# a full disk


def test_a_full_disk_stops_training_with_one_line_and_the_last_good_checkpoint(tmp_path):
    whole, _ = run(tmp_path / "whole", save_minutes=0)
    torch.manual_seed(0)
    lm, config = AudioLM(SIZES), TrainConfig(steps=40, batch_size=8, warmup=5, valid_every=20, save_minutes=0)
    trained = Trainer.train_step

    def fill_up(self, *batch):
        if self.step == 17:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return trained(self, *batch)

    with pytest.MonkeyPatch.context() as patch, full_disk(10**9):
        patch.setattr(Trainer, "train_step", fill_up)
        with pytest.raises(MinigenError, match=rf"cannot write .*{CHECKPOINT} .*File too large.*Make room") as caught:
            train(lm, Words(), tokens(), tokens(16, seed=1), tmp_path / "full", config, progress=False)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == [CHECKPOINT]
    assert load_checkpoint(tmp_path / "full" / CHECKPOINT)["step"] == 17
    resumed, _ = run(tmp_path / "full", save_minutes=0)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_full_disk_stops_the_corpus_and_the_tokens_and_both_go_on_afterwards(tmp_path):
    with full_disk(40_000), pytest.raises(MinigenError, match="cannot write .*wav"):
        build_corpus(tmp_path / "corpus", clips=4, seconds=2.0, workers=1, progress=False)
    assert not list((tmp_path / "corpus").rglob("*.part")) and not list((tmp_path / "corpus").rglob("*.wav"))
    build_corpus(tmp_path / "corpus", clips=4, seconds=2.0, workers=1, progress=False)
    corpus = read_corpus(tmp_path / "corpus", seconds=2.0)
    with full_disk(300), pytest.raises(MinigenError, match="cannot write tokens .*File too large"):
        tokenize(corpus, HashCodec(), tmp_path / "tokens", progress=False)
    assert len(tokenize(corpus, HashCodec(), tmp_path / "tokens", progress=False)) == len(corpus)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    save_checkpoint(tmp_path / "a", {"step": 1})
    old = (tmp_path / "a").read_bytes()
    with full_disk(10_000):
        for write in (lambda: save_checkpoint(tmp_path / "a", {"x": torch.zeros(10_000)}),
                      lambda: write_atomically(tmp_path / "a", bytes(20_000))):  # fmt: skip
            with pytest.raises(MinigenError, match="cannot write"):
                write()
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "a") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == old


# numbers that are none


class Poison(Words):
    """An encoder that turns one word into something that is no number."""

    def __init__(self, value: float):
        super().__init__()
        self.table[WORDS.index("wind")] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_names_its_batch_and_the_checkpoint_that_is_kept(tmp_path, value):
    rng = np.random.default_rng(0)
    data = tokens(64)
    calm = [row for row in range(64) if data.captions[row] != "wind"][:32]
    poisoned = next(row for row in range(64) if data.captions[row] == "wind")
    order = rng.permutation(calm).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minigen.train.clips_of_step", lambda n, c, step: order[4 * step : 4 * step + 4] if step < 6 else
                      [*order[:3], poisoned])  # fmt: skip
        config = TrainConfig(steps=20, batch_size=4, text_dropout=0, save_minutes=0, valid_every=50)
        with pytest.raises(MinigenError) as caught:
            valid = tokens(16, seed=1)
            valid.captions[:] = ["dog"] * 16
            train(AudioLM(SIZES), Poison(value), data, valid, tmp_path, config, progress=False)
    said = str(caught.value)
    assert "the loss of step 6 is nan" in said and f"clips {', '.join(map(str, [*order[:3], poisoned]))} of" in said
    assert f"last good checkpoint is {tmp_path / CHECKPOINT}" in said and "\n" not in said
    state = load_checkpoint(tmp_path / CHECKPOINT)
    assert state["step"] == 6 and all(torch.isfinite(value).all() for value in state["lm"].values())
    assert not (tmp_path / "model.safetensors").exists()


def test_a_gradient_that_is_no_number_never_reaches_the_weights():
    config = TrainConfig(batch_size=8, text_dropout=0.0)
    trainer = Trainer(AudioLM(SIZES), CrossEntropyObjective(SIZES, Words(), config), config)
    next(trainer.lm.parameters()).register_hook(lambda gradient: gradient * torch.inf)
    before = {name: value.clone() for name, value in trainer.lm.state_dict().items()}
    with pytest.raises(MinigenError, match="the gradient of step 0 is (nan|inf)"):
        trainer.train_step(*tokens().batch(range(8)))
    assert trainer.step == 0
    assert all(torch.equal(value, trainer.lm.state_dict()[name]) for name, value in before.items())


# checkpoints


TYPES = (torch.uint64, torch.int64, torch.float64, torch.float32, torch.uint32, torch.int32, torch.bfloat16,
         torch.float16, torch.uint16, torch.int16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8,
         torch.bool)  # fmt: skip


def mixed_tensors() -> dict[str, torch.Tensor]:
    """Every type that models use, and shapes that writers stumble over."""
    rng, tied = torch.Generator().manual_seed(0), torch.ones(4, 3)
    each = {f"{kind}": (100 * torch.rand(3, 5, generator=rng)).to(kind) for kind in TYPES}
    shapes = {"empty": torch.empty(0, 3), "none": torch.empty(0, dtype=torch.bool),
              "number": torch.tensor(3.5).bfloat16(),
              "view": torch.arange(12).view(3, 4).T, "step": torch.arange(10)[1::2]}  # fmt: skip
    return {**each, **shapes, "é": torch.ones(1), "one": tied, "other": tied, "part": tied[1]}


def test_tensors_of_any_type_shape_and_sharing_are_read_back_as_they_were(tmp_path):
    tensors = mixed_tensors()
    save_tensors(tmp_path / "ours", tensors, {"state": '{"é": "\n"}'})
    found = load_file(tmp_path / "ours")
    assert found.keys() == tensors.keys()
    assert all(
        found[name].dtype == value.dtype
        and found[name].shape == value.shape
        and found[name].flatten().view(torch.uint8).equal(value.contiguous().flatten().view(torch.uint8))
        for name, value in tensors.items()
    )
    with safe_open(tmp_path / "ours", "pt") as file:
        assert file.metadata() == {"state": '{"é": "\n"}'}


def test_a_tensor_that_the_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(MinigenError, match="type torch.complex128"):
        save_tensors(tmp_path / "a", {"x": torch.zeros(2, dtype=torch.complex128)})
    with pytest.raises(MinigenError, match="x, a tensor of torch.sparse"):
        save_tensors(tmp_path / "a", {"x": torch.eye(2).to_sparse()})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_written_file_has_the_permissions_of_other_new_files(tmp_path):
    """The library's writer creates files that only their owner may read."""
    (tmp_path / "usual").touch()
    save_checkpoint(tmp_path / "c", {"x": torch.ones(3)})
    assert (tmp_path / "c").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    write_atomically(tmp_path / "link", "one")
    write_atomically(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "file").read_text() == "two"
    assert len(list(tmp_path.rglob("*"))) == 3


def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", "old")
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path) == tmp_path / "a")
    with pytest.raises(MinigenError, match="cannot write .*a .Permission denied"):
        write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


WRITE = """
import resource, signal, sys, torch
from minigen.engine.checkpoint import save_checkpoint

most = int(sys.argv[2])
if most:  # the system kills the process at the first byte beyond
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
state = {str(number): torch.ones(1_000_000) for number in range(25)}  # 100 MB
save_checkpoint(sys.argv[1] + "/small", {"x": torch.ones(1)})  # whatever the first write loads
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
save_checkpoint(sys.argv[1] + "/c", state)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit and the unit are those of Linux")
def test_a_writer_killed_in_the_middle_leaves_only_what_is_removed_later(tmp_path):
    """The library's own writer leaves a temporary file of another name behind: it has to lie in the part's folder."""
    save_checkpoint(tmp_path / "c", {"step": 1})
    done = subprocess.run([sys.executable, "-c", WRITE, str(tmp_path), "50000000"], capture_output=True)
    assert done.returncode == -signal.SIGXFSZ
    (part,) = set(tmp_path.iterdir()) - {tmp_path / "c", tmp_path / "small"}
    assert len(list(part.rglob("*"))) == 1
    remove_stale_parts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"c", "small"}
    assert load_checkpoint(tmp_path / "c") == {"step": 1}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit and the unit are those of Linux")
def test_writing_a_checkpoint_takes_a_fifth_of_its_size_in_memory_at_the_most(tmp_path):
    done = subprocess.run([sys.executable, "-c", WRITE, str(tmp_path), "0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 0.2 * (tmp_path / "c").stat().st_size


def test_a_checkpoint_gives_back_what_went_in(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"lm": model.state_dict(), "optimizer": optimizer.state_dict(), "tied": [model.weight, model.weight],
             "view": torch.arange(6).view(2, 3)[:, 1], "log": [{"loss": float("nan"), "name": None, "on": True}],
             "empty": {}, "wide": torch.tensor([0.1], dtype=torch.float64), "half": torch.ones(2).half()}  # fmt: skip
    save_checkpoint(tmp_path / "c", state)
    found = load_checkpoint(tmp_path / "c")
    assert list(found) == list(state) and str(found["log"]) == str(state["log"]) and found["empty"] == {}
    for name in ("view", "wide", "half"):
        assert torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype
    assert torch.equal(found["tied"][1], model.weight)
    again = torch.optim.AdamW(model.parameters())
    again.load_state_dict(found["optimizer"])
    assert str(again.state_dict()["state"]) == str(optimizer.state_dict()["state"])


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self):
        return (open, ("pwned", "w"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(pickle.dumps(Trap())),
        lambda path: torch.save({"lm": Trap()}, path),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes((2**60).to_bytes(8, "little") + path.read_bytes()[8:]),
        lambda path: save_file({"x": torch.ones(1)}, path),
        lambda path: save_file({"x": torch.ones(1)}, path, {"state": '{"dict": [["lm", {"tensor": "y"}]]}'}),
        lambda path: save_file({"x": torch.ones(1)}, path, {"state": "[" * 500}),
    ],
    ids=["a pickle", "torch.save", "cut", "empty", "a vast header", "no state", "no such tensor", "no JSON"],
)
def test_a_spoiled_checkpoint_is_one_clear_line_and_nothing_in_it_is_run(spoil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / CHECKPOINT
    save_checkpoint(path, {"lm": {"x": torch.ones(100)}})
    spoil(path)
    with pytest.raises(MinigenError, match="is damaged.*Delete it to start afresh") as caught:
        run(tmp_path / "model")
    assert "\n" not in str(caught.value) and not (tmp_path / "pwned").exists()


def test_a_checkpoint_of_other_clips_or_another_size_is_refused(tmp_path):
    run(tmp_path, steps=2)
    config = TrainConfig(steps=2, batch_size=8, warmup=5, valid_every=20)
    with pytest.raises(MinigenError, match="other settings, clips, sizes"):
        train(AudioLM(SIZES), Words(), tokens(seed=3), tokens(16, seed=1), tmp_path, config, progress=False)
    with pytest.raises(MinigenError, match="other settings, clips, sizes"):
        run(tmp_path, lm=AudioLM(type(SIZES)(**{**vars(SIZES), "layers": 2})), steps=2)


# tables that only grow


def test_answers_are_kept_row_by_row_and_a_torn_one_is_lost_alone(tmp_path):
    table = tmp_path / "answers" / "one.csv"
    assert read_rows(table) == []
    append_row(table, {"clip": 1, "answer": "a, b\nand c"})
    append_row(table, {"clip": 2, "answer": "é"})
    with open(table, "a") as file:
        file.write("3,half an ans")  # killed while it wrote
    before = table.read_bytes()
    assert [row["clip"] for row in read_rows(table)] == ["1", "2"]
    assert table.read_bytes() == before  # a reader touches nothing: another process may be writing that row
    append_row(table, {"clip": 4, "answer": ""})
    with open(table, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["clip", "answer"], ["1", "a, b and c"], ["2", "é"], ["4", ""]]
    with pytest.raises(MinigenError, match="has the columns clip,answer, not clip,choice"):
        append_row(table, {"clip": 5, "choice": "x"})


def test_rows_written_at_once_are_those_that_are_read(tmp_path):
    path = tmp_path / "new" / "table.csv"
    write_rows(path, [{"name": "a, b", "value": 1.5}, {"name": "c", "value": 2}])
    assert path.read_text() == 'name,value\n"a, b",1.5\nc,2\n'
    assert read_rows(path) == [{"name": "a, b", "value": "1.5"}, {"name": "c", "value": "2"}]


def test_a_model_whose_weights_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    write_model(tmp_path, {"width": 1}, {"x": torch.ones(1)}, None)

    def full(*_):
        raise MinigenError("no space")

    monkeypatch.setattr("minigen.engine.weights.save_tensors", full)
    with pytest.raises(MinigenError, match="no space"):
        write_model(tmp_path, {"width": 2}, {"x": torch.ones(2)}, None)
    assert read_config(tmp_path) == {"width": 1} and len(read_tensors(tmp_path, None)["x"]) == 1
