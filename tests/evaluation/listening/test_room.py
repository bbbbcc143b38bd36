"""A class takes the listening test: behind a code, each name on one device, and no answer is lost."""

import http.client
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from minigen.engine.errors import MinigenError
from minigen.evaluation.listening import server as serving
from minigen.evaluation.listening.answers import answers_file, read_answers, store
from minigen.evaluation.listening.make import write_clips
from minigen.evaluation.listening.plan import new_plan, write_plan
from minigen.evaluation.listening.room import KEY_FILE, Room
from minigen.evaluation.listening.server import Server

MODELS = ("one, guidance 3", "two, guidance 3")
CAPTIONS = ("A dog barks", "Rain falls", "A bell rings")
PLAN = new_plan("0f" * 16, 0, MODELS, CAPTIONS, checks=1)


@pytest.fixture
def folder(tmp_path):
    write_plan(tmp_path, PLAN)
    sounds = dict(zip(MODELS, 0.1 * torch.randn(2, 1, 800), strict=True))
    for row in range(len(CAPTIONS)):
        write_clips(tmp_path, PLAN, row, sounds, 0.1 * torch.randn(1, 800))
    return tmp_path


@pytest.fixture
def room(folder):
    return Room(folder)


@pytest.fixture
def ask(folder, room):
    """A class's server on the loopback address; (method, path, body, headers) -> (status, content)."""
    with Server(folder, PLAN, room=room) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def ask(method, path, body=None, code=room.code, host="127.0.0.1"):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
            headers = {"Content-Type": "application/json", "X-Code": code, "Host": host}
            connection.request(method, path, json.dumps(body), headers)
            reply = connection.getresponse()
            found = reply.status, reply.read()
            connection.close()
            return found

        yield ask
        server.shutdown()
        thread.join()


def start(ask, listener, shown="", **headers):
    return json.loads(ask("POST", "/start", {"listener": listener, "pass": shown}, **headers)[1])


def answer_all(ask, listener):
    """Take the test as a browser does: trials, clips, answers. Returns the number of answers that were added."""
    told, added = start(ask, listener), 0
    for trial in told["trials"]:
        for side in ("left", "right"):
            assert ask("GET", f"/clips/{trial[side]}.flac")[0] == 200
        said = {"listener": listener, "trial": trial["trial"], "answer": "left", "pass": told["pass"]}
        added += json.loads(ask("POST", "/answer", said)[1])["added"]
    return added


def test_forty_listeners_at_once_lose_no_answer(ask, folder):
    names = [f"listener {n}" for n in range(40)]
    with ThreadPoolExecutor(40) as pool:
        added = list(pool.map(lambda name: answer_all(ask, name), names))
    assert added == [len(PLAN.trials)] * 40
    rows = read_answers(folder)
    assert len(rows) == 40 * len(PLAN.trials) == len({(row["listener"], row["trial"]) for row in rows})
    assert Counter(row["listener"] for row in rows) == dict.fromkeys(names, len(PLAN.trials))


def test_without_the_code_there_are_no_trials_no_clips_and_no_answers(ask, folder):
    shown = start(ask, "anna")["trials"][0]
    for code in ("", "AAAAAA", "a" * 500):
        assert "code" in start(ask, "ben", code=code)["error"]
        assert ask("GET", f"/clips/{shown['left']}.flac", code=code)[0] == 404
    assert ask("GET", "/", code="")[0] == 200
    assert not (folder / "answers").exists()


def test_the_code_may_be_typed_in_small_letters(ask, room):
    assert "trials" in start(ask, "anna", code=f" {room.code.lower()} ")


def test_a_name_belongs_to_one_device(ask, folder):
    told = start(ask, "Anna")
    said = {"listener": "anna", "trial": told["trials"][0]["trial"], "answer": "left"}
    for shown in ("", "00" * 32, start(ask, "ben")["pass"], "é"):
        assert "taken" in start(ask, "ANNA ", shown)["error"]
        status, content = ask("POST", "/answer", {**said, "pass": shown})
        assert status == 400 and "has not begun" in json.loads(content)["error"]
    assert not answers_file(folder, "anna").exists()
    assert start(ask, "anna", told["pass"])["trials"] == told["trials"]
    assert json.loads(ask("POST", "/answer", {**said, "pass": told["pass"]})[1]) == {"added": True}


def test_code_and_passes_stay_the_same_after_a_restart(folder, room):
    given = room.admit("anna", "")
    store(folder, PLAN, "anna", next(iter(PLAN.trials)), "left")
    again = Room(folder)
    assert again.code == room.code and again.admit("anna", given) == given
    with pytest.raises(MinigenError, match="taken on another device"):
        again.admit("anna", "")


def test_another_test_has_another_code_and_other_passes(room, tmp_path_factory):
    other = Room(tmp_path_factory.mktemp("other"))
    assert other.code != room.code and other.admit("anna", "") != room.admit("anna", "")


def test_only_the_owner_reads_the_key_and_it_is_not_served(ask, folder, room):
    assert (folder / KEY_FILE).stat().st_mode & 0o077 == 0
    for path in ("/room.key", "/clips/../room.key", "/answers/anna.csv", "/plan.json", "/clips/%2e%2e/room.key"):
        assert ask("GET", path)[0] == 404


@pytest.mark.parametrize("content", ["", "xyz", "00"])
def test_a_damaged_key_is_one_line(folder, content):
    (folder / KEY_FILE).write_text(content)
    with pytest.raises(MinigenError, match="no key of a test"):
        Room(folder)


def test_a_class_reaches_it_by_address_and_a_foreign_site_does_not(ask):
    assert ask("GET", "/", host="192.168.0.7:8765")[0] == 200
    for host in ("evil.example", "evil.example:8765", "", "192.168.0.7.evil.example"):
        assert ask("GET", "/", host=host)[0] == 404


def test_the_page_asks_for_the_code_only_where_there_is_one(ask):
    assert b'id="code"' in ask("GET", "/")[1]
    assert 'id="code"' not in serving.page()


def test_the_invitation_names_address_and_code(folder, room, monkeypatch):
    monkeypatch.setattr(serving, "own_address", lambda: "192.168.0.7")
    with Server(folder, PLAN, room=room, host="0.0.0.0") as server:
        said = serving._invitation(server)
    assert room.code in said and f"http://192.168.0.7:{server.server_port}/" in said
    with Server(folder, PLAN) as server:
        assert room.code not in serving._invitation(server)
