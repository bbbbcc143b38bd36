"""Server of a listening test: shows its page to a browser on the same machine and stores the answers.

    folder (plan, clips) ──serve──► http://127.0.0.1:8765 ──one POST for each answer──► answers/anna.csv

The standard library's HTTP server, on 127.0.0.1 only. It serves the page, the open trials of a listener, and the clips
of the plan. A requested path is looked up in the list of these clips, never on the disk. An answer is accepted only if
it fits the plan.
"""

import json
import socket
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

from minigen.display.templates import render
from minigen.engine.errors import MinigenError
from minigen.evaluation.listening.answers import open_trials, store
from minigen.evaluation.listening.plan import SIDES, Plan, clip_file

POLICY = ("default-src 'none'; connect-src 'self'; media-src blob:; style-src 'unsafe-inline'; "
          "script-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")  # fmt: skip


@cache
def page() -> str:
    """The page of the test as HTML. It contains no model names and no file names; its script asks for the trials."""
    sides = [{"name": side, "ordinal": ordinal} for side, ordinal in zip(SIDES, ("first", "second"), strict=True)]
    return render(Path(__file__).with_name("page.html.j2"), sides=sides)


class Server(ThreadingHTTPServer):
    """A listening test on 127.0.0.1. With port 0 the system chooses a free port; `server_port` is its number.

    Raises:
        MinigenError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: str | Path, plan: Plan, port: int = 0):
        self.folder, self.plan, self.lock = Path(folder), plan, threading.Lock()
        names = [name for row in range(len(plan.captions)) for name in plan.files(row).values()]
        self.clips = {f"/clips/{name}.flac": clip_file(folder, name) for name in names}
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            raise _unusable(port, error) from error

    def server_bind(self) -> None:
        """Bind as TCPServer does: HTTPServer would look up this machine's name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


class Handler(BaseHTTPRequestHandler):
    """GET the page and the clips; POST a name to /start and get the open trials; POST one answer to /answer."""

    server_version, sys_version, timeout = "minigen", "", 60

    def do_GET(self) -> None:
        """Send the page, or a clip of the plan."""
        if self.path == "/" and self._is_local():
            self._send(200, page().encode(), "text/html; charset=utf-8")
        elif self.path in self.server.clips and self._is_local() and self.server.clips[self.path].is_file():
            self._send(200, self.server.clips[self.path].read_bytes(), "audio/flac")
        else:
            self._send(404, b"not here", "text/plain")

    def do_POST(self) -> None:
        """Take a name or an answer as JSON; send {"error": ...} if it is wrong."""
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
        """Whether the request names this machine. It refuses a foreign site whose name resolves to 127.0.0.1."""
        return self.headers.get("Host", "").rsplit(":", 1)[0] in ("127.0.0.1", "localhost")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        fixed = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": POLICY}
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **fixed}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        """Print nothing: a line for every clip would hide the messages that matter."""


def check_port(port: int) -> None:
    """Refuse a port that cannot be used, before the sounds are made.

    Raises:
        MinigenError: the port is taken, or not allowed.
    """
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise _unusable(port, error) from error


def _unusable(port: int, error: OSError) -> MinigenError:
    return MinigenError(f"port {port} cannot be used ({error.strerror}). Choose another with --port.")


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
