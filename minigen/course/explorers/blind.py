"""The blind listening test of `minigen listen` in a notebook (09), with the same plan, CSV and report."""

from html import escape
from pathlib import Path

import ipywidgets
import soundfile
import torch

from minigen.display.players import audio_tag
from minigen.engine.errors import MinigenError
from minigen.evaluation.listening.answers import open_trials, read_answers, store
from minigen.evaluation.listening.plan import SIDES, Shown, check_name, clip_file, require_plan
from minigen.evaluation.listening.results import report


class BlindTest(ipywidgets.VBox):
    """Widget that asks a listener, pair by pair, which of two sounds fits the caption better, and shows the report.

    folder: of a test whose clips are made (`minigen listen`). Each answer is written to the listener's CSV before the
    next pair is shown. With the same name the test continues where it stopped, here or in the browser.

    Raises:
        MinigenError: there is no test in the folder.
    """

    def __init__(self, folder: str | Path, listener: str = ""):
        self.folder, self.plan = Path(folder), require_plan(folder)
        self.trials: list[Shown] = []
        self.name = ipywidgets.Text(listener, description="your name", continuous_update=False)
        self.begin = ipywidgets.Button(description="begin", button_style="primary")
        self.bar = ipywidgets.IntProgress(max=len(self.plan.trials), layout=ipywidgets.Layout(width="400px"))
        self.said, self.caption = ipywidgets.HTML(), ipywidgets.HTML()
        self.sounds = {side: ipywidgets.HTML() for side in SIDES}
        whole = {"layout": ipywidgets.Layout(width="auto")}  # the standard width is too narrow for the text
        self.answers = {side: ipywidgets.Button(description=f"the {word} fits better", disabled=True, **whole)
                        for side, word in zip(SIDES, ("first", "second"), strict=True)}  # fmt: skip
        self.show_report = ipywidgets.Button(description="report so far")
        self.begin.on_click(self._begin)
        self.show_report.on_click(self._report)
        for side, button in self.answers.items():
            button.on_click(lambda _, side=side: self.answer(side))
        pair = ipywidgets.HBox([ipywidgets.VBox([self.sounds[side], self.answers[side]]) for side in SIDES])
        top = ipywidgets.HBox([self.name, self.begin, self.show_report])
        super().__init__([top, self.bar, self.caption, pair, self.said])

    def _begin(self, _button=None) -> None:
        try:
            self.trials = open_trials(self.folder, self.plan, self.name.value)
        except MinigenError as error:
            self.said.value = escape(str(error))
            return
        self.said.value = f"{escape(check_name(self.name.value))}: where you hear no difference, guess."
        self._show()

    def answer(self, side: str) -> None:
        """Store the answer to the pair that is shown, and show the next."""
        try:
            store(self.folder, self.plan, self.name.value, self.trials[0].trial, side)
        except MinigenError as error:
            self.said.value = escape(str(error))
            return
        self.trials = self.trials[1:]
        self._show()

    def _show(self) -> None:
        self.bar.value = self.bar.max - len(self.trials)
        for side in SIDES:
            self.answers[side].disabled = not self.trials
            self.sounds[side].value = self._player(getattr(self.trials[0], side)) if self.trials else ""
        if self.trials:
            self.caption.value = f"<b>{self.bar.value + 1} of {self.bar.max}: “{escape(self.trials[0].caption)}”</b>"
        else:
            self.caption.value = "<b>That was all. Thank you.</b>"
            self._report()

    def _player(self, name: str) -> str:
        samples, rate = soundfile.read(clip_file(self.folder, name), dtype="float32")
        return audio_tag(torch.from_numpy(samples), rate)

    def _report(self, _button=None) -> None:
        self.said.value = f"<pre>{escape(str(report([self.plan], read_answers(self.folder))))}</pre>"
