"""`minigen listen`: makes a listening test, and serves it to a browser on the same machine.

    recipe (models, guidance, clips) ──make_test──► folder (plan, clips) ──serve──► http://127.0.0.1:8765
                                                      ▲ answers/anna.csv ◄── one POST an answer, on the disk at once

The server is the standard library's. It listens on 127.0.0.1 alone and gives out three things: the page, the listener's
open trials, and the clips of the plan by their meaningless names; a path is looked up among those, never on the disk.
What it takes is an answer that fits the plan. A making that was stopped goes on where it was, batch by batch.
"""

import json
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

from torch import Tensor

from minigen.engine.errors import MinigenError
from minigen.evaluation.listening.make import (
    Plan,
    begun_plan,
    clip_file,
    missing,
    new_plan,
    open_trials,
    read_plan,
    store,
    write_clips,
    write_plan,
)
from minigen.evaluation.listening.page import PAGE, POLICY
from minigen.evaluation.listening.results import Report, read_answers, report

BATCH = 8  # captions that are generated at once
REAL = "real"  # among the models: the true clips themselves
RECIPE = {"models": ["mini-dropout", "mini-regularized"], "guidance": [3.0], "clips": 12, "checks": 4, "seconds": 4.0,
          "data": None, "split": "test", "seed": 0}  # fmt: skip


def whole_recipe(folder: str | Path, given: dict) -> dict:
    """What is asked for, filled up from the test that the folder holds, else from RECIPE. None: not asked for.

    Raises:
        MinigenError: the folder holds a test of something else, or the strengths of guidance do not fit the models.
    """
    plan, asked = read_plan(folder), {name: value for name, value in given.items() if value is not None}
    recipe = {**RECIPE, **(plan.recipe if plan else {}), **asked}
    if plan and plan.recipe and recipe != {**RECIPE, **plan.recipe}:
        name = next(name for name, value in asked.items() if value != plan.recipe.get(name))
        raise MinigenError(
            f"{folder} holds a test with {name} {plan.recipe.get(name)}, not {asked[name]}. Name another folder."
        )
    if len(recipe["guidance"]) not in (1, len(recipe["models"])):
        count = f"{len(recipe['guidance'])} strengths of guidance for {len(recipe['models'])} models"
        raise MinigenError(f"{count}. Give one, or one for each model.")
    return recipe


def contestants(recipe: dict) -> dict[str, tuple[str, float]]:
    """Name in the report -> (model, guidance); a model may take part at several strengths of guidance."""
    models = recipe["models"]
    scales = recipe["guidance"] * (len(models) if len(recipe["guidance"]) == 1 else 1)
    pairs = zip(models, scales, strict=True)
    named = [("real clips" if m == REAL else f"{m}, guidance {w:g}", (m, w)) for m, w in pairs]
    if len(dict(named)) < max(2, len(named)):
        raise MinigenError(f"the models are {', '.join(name for name, _ in named)}. Give two or more that differ.")
    return dict(named)


def make_test(folder: str | Path, recipe: dict, load_clips: Callable, load_model: Callable) -> Plan:
    """The test of a folder, whole: begun, gone on with, or as it is.

    recipe: of `whole_recipe`. load_clips(): -> (clips, real [n, 1, samples]). load_model(name): -> `TextToAudio`.
    Both are called only where clips are missing.

    Raises:
        MinigenError: the captions are no longer those the test began with, or a place cannot be written.
    """
    plan, names = read_plan(folder), contestants(recipe)
    if plan and not missing(folder, plan):
        return plan
    clips, real = load_clips()
    captions = tuple(clip.caption for clip in clips)
    if plan is None:
        plan = new_plan(secrets.token_hex(16), recipe["seed"], names, captions, recipe["checks"], recipe)
        write_plan(folder, plan)
    if plan.captions != captions:
        raise MinigenError(f"{folder} was begun with other captions than its corpus has now. Name another folder.")
    models = {model: load_model(model) for model in {model for model, _ in names.values()} - {REAL}}
    for start in range(0, len(captions), BATCH):
        if set(missing(folder, plan)) & set(range(start, start + BATCH)):
            _make_batch(folder, plan, start, names, models, real)
    return plan


def _make_batch(folder: str | Path, plan: Plan, start: int, names: dict, models: dict, real: Tensor) -> None:
    """The clips of up to eight captions. Drawn with seed + number of the batch: stopped or not, the same sounds."""
    from minigen.evaluation.measure import generate_for

    rows = range(start, min(start + BATCH, len(plan.captions)))
    captions, seconds, seed = [plan.captions[row] for row in rows], plan.recipe["seconds"], plan.seed + start // BATCH
    sounds = {
        name: real[start : start + BATCH]
        if model == REAL
        else generate_for(models[model], captions, seconds, guidance, seed, BATCH, label=name)
        for name, (model, guidance) in names.items()
    }
    for i, row in enumerate(rows):
        write_clips(folder, plan, row, {name: wavs[i] for name, wavs in sounds.items()}, real[row])


def report_of(folder: str | Path, more: list[str | Path] = ()) -> Report:
    """The report on a test; `more`: CSVs or folders of CSVs that others sent, or other tests, whose plans count too.

    Raises:
        MinigenError: no test there, or something that holds no answers.
    """
    plans = [begun_plan(folder), *(plan for place in more if (plan := read_plan(place)))]
    return report(plans, read_answers(folder, *more))


class Server(ThreadingHTTPServer):
    """A listening test on 127.0.0.1. port 0: any that is free; `server_port` tells which.

    Raises:
        MinigenError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: str | Path, plan: Plan, port: int = 0):
        self.folder, self.plan, self.lock = Path(folder), plan, threading.Lock()
        rows = range(len(plan.captions))
        self.clips = {f"/clips/{name}.flac": clip_file(folder, name)
                      for row in rows for name in plan.files(row).values()}  # fmt: skip
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            raise MinigenError(f"port {port} cannot be used ({error.strerror}). Choose another with --port.") from error

    def server_bind(self) -> None:
        """As TCPServer: HTTPServer would ask the name service for this machine's name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


class Handler(BaseHTTPRequestHandler):
    """GET the page and the clips; POST /start a name and get the open trials; POST /answer one answer."""

    server_version, sys_version, timeout = "minigen", "", 60

    def do_GET(self) -> None:
        """The page, or a clip of the plan."""
        if self.path == "/" and self._is_local():
            self._send(200, PAGE.encode(), "text/html; charset=utf-8")
        elif self.path in self.server.clips and self._is_local() and self.server.clips[self.path].is_file():
            self._send(200, self.server.clips[self.path].read_bytes(), "audio/flac")
        else:
            self._send(404, b"not here", "text/plain")

    def do_POST(self) -> None:
        """A name, or an answer, as JSON; what is wrong with it comes back as {"error": ...}."""
        asked = {"/start": self._start, "/answer": self._answer}.get(self.path)
        if asked is None or not self._is_local() or self.headers.get_content_type() != "application/json":
            return self._send(404, b"not here", "text/plain")
        try:
            with self.server.lock:
                answer, status = asked(self._read()), 200
        except MinigenError as error:
            answer, status = {"error": str(error)}, 400
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _start(self, said: dict) -> dict:
        trials = open_trials(self.server.folder, self.server.plan, said.get("listener", ""))
        return {"trials": [shown._asdict() for shown in trials], "of": len(self.server.plan.trials)}

    def _answer(self, said: dict) -> dict:
        values = [str(said.get(name, "")) for name in ("listener", "trial", "answer")]
        return {"added": store(self.server.folder, self.server.plan, *values)}

    def _read(self) -> dict:
        length = self.headers.get("Content-Length", "")
        try:
            said = json.loads(self.rfile.read(int(length))) if length.isdigit() and int(length) < 4096 else None
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise MinigenError("that was no answer. Reload the page.")
        return said

    def _is_local(self) -> bool:
        """A page of another site that calls this address under its own name is not answered."""
        return self.headers.get("Host", "").rsplit(":", 1)[0] in ("127.0.0.1", "localhost")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        fixed = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": POLICY}
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **fixed}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        """Nothing: a line for every clip would hide what matters."""


def serve(folder: str | Path, plan: Plan, port: int) -> None:
    """Serve a test until Ctrl-C.

    Raises:
        MinigenError: the port is taken.
    """
    with Server(folder, plan, port) as server:
        print(f"open http://127.0.0.1:{server.server_port}/ in a browser on this machine; Ctrl-C ends", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"\nanswers are in {Path(folder) / 'answers'}; see them: minigen listen {folder} --report")
