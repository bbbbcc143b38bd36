"""Server of a listening test: shows its page to browsers and stores the answers.

    folder (plan, clips) ──serve──► http://127.0.0.1:8765 ──one POST for each answer──► answers/anna.csv

The standard library's HTTP server, on 127.0.0.1 unless another address is given. It serves the page, the open trials of
a listener, and the clips of the plan. A requested path is looked up in the list of these clips, never on the disk. An
answer is accepted only if it fits the plan.

On another address a class can take the test from its own phones and laptops. The page then asks for a code, and each
name belongs to one device (`minigen.evaluation.listening.room`). The connection is not encrypted.
"""

import ipaddress
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
from minigen.evaluation.listening.room import Room

LOOPBACK = "127.0.0.1"

POLICY = ("default-src 'none'; connect-src 'self'; media-src blob:; style-src 'unsafe-inline'; "
          "script-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")  # fmt: skip


@cache
def page(asks_code: bool = False) -> str:
    """The page of the test as HTML. It contains no model names and no file names; its script asks for the trials."""
    sides = [{"name": side, "ordinal": ordinal} for side, ordinal in zip(SIDES, ("first", "second"), strict=True)]
    return render(Path(__file__).with_name("page.html.j2"), sides=sides, asks_code=asks_code)


class Server(ThreadingHTTPServer):
    """A listening test at an address of this machine.

    Args:
        folder: of the test.
        plan: of the test.
        port: 0 lets the system choose a free one; `server_port` is its number.
        room: the code and the passes of a class; None: anybody who reaches the address may answer.
        host: IPv4 address or name of this machine; 0.0.0.0 means all of its addresses.

    Raises:
        MinigenError: the address or the port cannot be used.
    """

    daemon_threads = True
    request_queue_size = 128  # a whole class may press a button at the same moment

    def __init__(self, folder: str | Path, plan: Plan, port: int = 0, room: Room | None = None, host: str = LOOPBACK):
        self.folder, self.plan, self.lock = Path(folder), plan, threading.Lock()
        self.room, self.host = room, host
        names = [name for row in range(len(plan.captions)) for name in plan.files(row).values()]
        self.clips = {f"/clips/{name}.flac": clip_file(folder, name) for name in names}
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise _unusable(host, port, error) from error

    def server_bind(self) -> None:
        """Bind as TCPServer does: HTTPServer would look up this machine's name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


class Handler(BaseHTTPRequestHandler):
    """GET the page and the clips; POST a name to /start and get the open trials; POST one answer to /answer."""

    server_version, sys_version, timeout = "minigen", "", 60

    def do_GET(self) -> None:
        """Send the page, or a clip of the plan."""
        if not self._is_addressed():
            self._send(404, b"not here", "text/plain")
        elif self.path == "/":
            self._send(200, page(self.server.room is not None).encode(), "text/html; charset=utf-8")
        elif self.path in self.server.clips and self._is_admitted() and self.server.clips[self.path].is_file():
            self._send(200, self.server.clips[self.path].read_bytes(), "audio/flac")
        else:
            self._send(404, b"not here", "text/plain")

    def do_POST(self) -> None:
        """Take a name or an answer as JSON; send {"error": ...} if it is wrong."""
        asked = {"/start": self._start, "/answer": self._answer}.get(self.path)
        if asked is None or not self._is_addressed() or self.headers.get_content_type() != "application/json":
            return self._send(404, b"not here", "text/plain")
        try:
            with self.server.lock:
                answer, status = asked(self._read()), 200
        except MinigenError as error:
            answer, status = {"error": str(error)}, 400
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _start(self, said: dict) -> dict:
        server, listener, shown = self.server, said.get("listener", ""), str(said.get("pass", ""))
        if not self._is_admitted():
            raise MinigenError("the code is not that of this test. Ask for it, and type it again.")
        given = {} if server.room is None else {"pass": server.room.admit(listener, shown)}
        trials = open_trials(server.folder, server.plan, listener)
        return {"trials": [shown._asdict() for shown in trials], "of": len(server.plan.trials), **given}

    def _answer(self, said: dict) -> dict:
        room, values = self.server.room, [str(said.get(name, "")) for name in ("listener", "trial", "answer")]
        if room is not None and not room.knows(values[0], str(said.get("pass", ""))):
            raise MinigenError("this device has not begun the test under this name. Reload the page.")
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

    def _is_admitted(self) -> bool:
        """Whether the request carries the code of the room, where there is one."""
        return self.server.room is None or self.server.room.opens(self.headers.get("X-Code", ""))

    def _is_addressed(self) -> bool:
        """Whether the request names this machine as its user does. It refuses a foreign site with a name of its own.

        Such a site could let its name resolve to this machine and so read the answers of this server in a browser. It
        cannot do so with a bare address.
        """
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host in (LOOPBACK, "localhost", self.server.host):
            return True
        return self.server.room is not None and _is_address(host)

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        fixed = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": POLICY}
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **fixed}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        """Print nothing: a line for every clip would hide the messages that matter."""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_port(port: int, host: str = LOOPBACK) -> None:
    """Refuse an address or a port that cannot be used, before the sounds are made.

    Raises:
        MinigenError: the address is not of this machine, or the port is taken or not allowed.
    """
    try:
        socket.create_server((host, port)).close()
    except (OSError, UnicodeError) as error:
        raise _unusable(host, port, error) from error


def _unusable(host: str, port: int, error: OSError | UnicodeError) -> MinigenError:
    reason = getattr(error, "strerror", None) or "no such address"
    if host == LOOPBACK:
        return MinigenError(f"port {port} cannot be used ({reason}). Choose another with --port.")
    return MinigenError(
        f"{host[:60]!r} with port {port} cannot be used ({reason}). Give an IPv4 address of this machine, such as "
        "0.0.0.0 for all of them, or another --port."
    )


def serve(folder: str | Path, plan: Plan, port: int, host: str = LOOPBACK) -> None:
    """Serve a test until Ctrl-C; on another address than 127.0.0.1 behind a code, for a class.

    Raises:
        MinigenError: the address or the port cannot be used.
    """
    room = None if host in (LOOPBACK, "localhost") else Room(folder)
    with Server(folder, plan, port, room, host) as server:
        print(_invitation(server), flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"\nanswers are in {Path(folder) / 'answers'}; see them: minigen listen {folder} --report")


def _invitation(server: Server) -> str:
    """Address to open, and for a class the code to type."""
    if server.room is None:
        return f"open http://{LOOPBACK}:{server.server_port}/ in a browser on this machine; Ctrl-C ends"
    address = own_address() if server.host == "0.0.0.0" else server.host
    return (
        f"open http://{address}:{server.server_port}/ on any device of this network and type the code "
        f"{server.room.code}; Ctrl-C ends\n"
        "the connection is not encrypted, and everybody with the code may listen and answer: use a network you trust"
    )


def own_address() -> str:
    """IPv4 address of this machine in its network; 127.0.0.1 where it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation: it chooses the interface only
            return probe.getsockname()[0]
        except OSError:
            return LOOPBACK
