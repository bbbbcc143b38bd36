"""The loop of every training: a budget of steps or minutes, a progress bar, and a checkpoint every minute.

    loop = Loop(folder / CHECKPOINT, identity, state, steps=2000)
    saved = loop.resume()          # what the last checkpoint holds; None at the first start
    for share in loop:             # share of the budget that is spent, 0 to 1
        ...                        # one step
        loop.show("loss 3.21")

The body of the `for` is one step. After it the loop counts the step, moves the bar, and writes a checkpoint when the
last one is `save_minutes` old, after the last step, and after the step in which Ctrl-C was pressed. A checkpoint holds
`state()`, which the training defines, and the step, the seconds and the identity, which the loop adds. A training whose
steps depend on `state()` and on (seed, step) alone ends, killed at any moment and started again, with the same weights
bit for bit. Among several processes of one training the first one writes. A second training in the folder is refused.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch
from tqdm.auto import tqdm

from minigen.engine import distributed
from minigen.engine.checkpoint import load_checkpoint, save_checkpoint
from minigen.engine.errors import MinigenError
from minigen.engine.files import remove_stale_parts, try_lock

LOCK = ".training.lock"  # in the folder of a training, while it runs
SAVE_MINUTES = 1.0  # between checkpoints, where the training does not say


class Loop:
    """Iterates over the steps of one training until its budget is spent.

    Args:
        checkpoint (Path): the file that is written; parent folders are made.
        identity (str): settings and data of the training. A checkpoint of another identity is refused.
        state (callable): returns everything that the next step depends on, as nested dicts and lists of tensors,
            numbers and strings.
        steps (int): budget in steps.
        minutes (float): budget in minutes, where `steps` is None.
        name (str): label of the progress bar.
        save_minutes (float): minutes between checkpoints, `SAVE_MINUTES` where it is None.
        progress (bool): show the bar.

    step: number of finished steps. seconds: time up to the last finished step, over all runs of this training.
    """

    def __init__(
        self,
        checkpoint: Path,
        identity: str,
        state: Callable[[], dict],
        steps: int | None = None,
        minutes: float = 1.0,
        name: str = "training",
        save_minutes: float | None = None,
        progress: bool = True,
    ):
        self.checkpoint, self.identity, self.state = checkpoint, identity, state
        self.steps, self.minutes = steps, minutes
        self.save_minutes = SAVE_MINUTES if save_minutes is None else save_minutes
        self.step, self.seconds = 0, 0.0
        unit, total = ("step", steps) if steps else ("%", 100)
        self._bar_options = {"desc": name, "unit": unit, "total": total, "disable": not progress}

    @property
    def share(self) -> float:
        """Share of the budget that is spent; 1 or more when the training is over."""
        return self.step / self.steps if self.steps else self.seconds / (60 * self.minutes)

    def elapsed(self) -> float:
        """Seconds of this training until now, over all its runs; to be asked inside the loop."""
        return time.monotonic() - self._began

    def resume(self, device: torch.device | str = "cpu") -> dict | None:
        """Read the checkpoint, if there is one, and go on after its last step.

        Returns:
            The state that was saved, or None.

        Raises:
            MinigenError: the checkpoint is damaged or belongs to another training, or the processes found different
                ones.
        """
        saved = load_checkpoint(self.checkpoint, device) if self.checkpoint.is_file() else None
        if saved is not None:
            if saved.get("identity") != self.identity:
                raise MinigenError(
                    f"{self.checkpoint} was made with other settings, clips, sizes or optimisers. Name another folder, "
                    f"or delete it to start afresh."
                )
            self.step, self.seconds = saved["step"], saved["seconds"]
        distributed.check_agreed("the step to go on from", self.step)
        if distributed.is_first():
            remove_stale_parts(self.checkpoint.parent)
        return saved

    def __iter__(self) -> Iterator[float]:
        saved = time.monotonic()
        self._began = saved - self.seconds
        left = (self.checkpoint.parent / LOCK).exists()  # by a process that was killed after its last step
        alone = self._alone() if self.share < 1 or left else nullcontext()  # a finished training writes nothing
        with alone, self._interrupts_wait(), tqdm(initial=self._done(), **self._bar_options) as self._bar:
            while (share := self.share) < 1:
                yield share
                self.step += 1
                self.seconds = self.elapsed()
                self._bar.update(self._done() - self._bar.n)
                if self.share >= 1 or self._interrupted or time.monotonic() - saved > 60 * self.save_minutes:
                    self.save()
                    saved = time.monotonic()
                if self._interrupted:
                    raise KeyboardInterrupt

    def show(self, text: str) -> None:
        """Show figures of the current step behind the progress bar."""
        self._bar.set_postfix_str(text)

    def save(self) -> None:
        """Write a checkpoint; the last good one stays until the new one is complete.

        Raises:
            MinigenError: the disk is full, or the place cannot be written.
        """
        if distributed.is_first():
            own = {"identity": self.identity, "step": self.step, "seconds": self.seconds}
            save_checkpoint(self.checkpoint, {**self.state(), **own})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock while steps are made: a second training in it would overwrite the first.

        Raises:
            MinigenError: another training holds it, or the folder cannot be written.
        """
        if not distributed.is_first():
            yield
            return
        path = self.checkpoint.parent / LOCK
        lock = try_lock(path)
        if lock is None:
            raise MinigenError(
                f"another training writes to {self.checkpoint.parent}. Wait until it is done, or name another folder."
            )
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps a file that is open
                path.unlink()
            lock.release()

    @contextmanager
    def _interrupts_wait(self) -> Iterator[None]:
        """Let the first Ctrl-C wait until the step is finished and saved; a second one stops at once.

        Several processes, which finish each step together, and threads, which get no signals, stop as they always do.
        """
        self._interrupted = False
        usual = signal.getsignal(signal.SIGINT)
        if distributed.count() > 1 or threading.current_thread() is not threading.main_thread() or not callable(usual):
            yield
            return

        def wait(*_) -> None:
            self._interrupted = True
            signal.signal(signal.SIGINT, usual)

        signal.signal(signal.SIGINT, wait)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)

    def _done(self) -> int:
        """Position of the bar: finished steps, or per cent of the minutes."""
        return self.step if self.steps else min(100, int(100 * self.share))
