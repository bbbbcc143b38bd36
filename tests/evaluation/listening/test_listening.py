"""The listening test: blind, fair, and never losing an answer; its report counts each judgement once."""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import standins
import torch

from minigen.corpus.clip import Clip
from minigen.engine.errors import MinigenError
from minigen.evaluation.listening import make
from minigen.evaluation.listening.answers import COLUMNS, answers_file, open_trials, read_answers, store
from minigen.evaluation.listening.loudness import loudness
from minigen.evaluation.listening.make import write_clips
from minigen.evaluation.listening.plan import (
    NOISE_CHECK,
    REAL_CHECK,
    check_name,
    clip_file,
    missing_rows,
    new_plan,
    read_plan,
    write_plan,
)
from minigen.evaluation.listening.results import report, report_of, wilson
from minigen.evaluation.listening.server import Server
from minigen.generate import TextToAudio

MODELS = ("mini-dropout, guidance 3", "mini-regularized, guidance 3")
CAPTIONS = tuple(f"A dog barks {n} times" for n in range(8))
PLAN = new_plan("00ff" * 8, 0, MODELS, CAPTIONS, checks=4)


@pytest.fixture
def folder(tmp_path):
    """A test without its clips."""
    write_plan(tmp_path / "test", PLAN)
    return tmp_path / "test"


def answer_all(folder, listener, choose, plan=PLAN):
    """Answer every trial; choose(models of the trial) -> the model preferred."""
    for shown in open_trials(folder, plan, listener):
        trial = plan.trials[shown.trial]
        file = trial.files[trial.models.index(choose(trial.models))]
        assert store(folder, plan, listener, shown.trial, "left" if file == shown.left else "right")


def honest(favourite):
    """Right in the checks, the favourite elsewhere."""
    return lambda models: REAL_CHECK if REAL_CHECK in models else favourite


# the plan


def test_a_listener_meets_every_trial_once_in_an_order_and_with_sides_of_her_own():
    anna, again, ben = (PLAN.shown_to(name) for name in ("Anna", " anna ", "ben"))
    assert anna == again != ben
    assert sorted(shown.trial for shown in anna) == sorted(PLAN.trials) and len(anna) == 8 + 4
    assert [shown.trial for shown in anna] != [shown.trial for shown in ben]
    assert new_plan(PLAN.key, 1, MODELS, CAPTIONS).shown_to("anna") != anna


def test_each_model_is_on_the_left_about_half_the_time():
    lefts = [shown.left == PLAN.trials[shown.trial].files[0] for n in range(100) for shown in PLAN.shown_to(f"a{n}")]
    assert 0.45 < np.mean(lefts) < 0.55


def test_every_model_meets_every_other_for_every_caption():
    plan = new_plan("ab", 0, ("x", "y", "z"), CAPTIONS, checks=2)
    pairs = Counter(trial.models for trial in plan.trials.values())
    assert pairs == {("x", "y"): 8, ("x", "z"): 8, ("y", "z"): 8, (REAL_CHECK, NOISE_CHECK): 2}


def test_the_checks_are_spread_over_the_test():
    for n in range(20):
        models = [PLAN.trials[shown.trial].models for shown in PLAN.shown_to(f"a{n}")]
        quarters = [models[i : i + 3] for i in (0, 3, 6, 9)]
        assert all((REAL_CHECK, NOISE_CHECK) in quarter for quarter in quarters)


def test_names_are_meaningless_and_belong_to_the_key():
    names = [name for row in range(8) for name in PLAN.files(row).values()]
    assert len(set(names)) == 8 * 2 + 4 * 2
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in [*names, *PLAN.trials])
    assert not set(names) & set(new_plan("01", 0, MODELS, CAPTIONS).files(0).values())


def test_a_plan_comes_back_as_it_was_written_and_a_damaged_one_is_one_line(folder):
    assert read_plan(folder) == PLAN and read_plan(folder / "nowhere") is None
    for text in ("", "{}", "[]", (folder / "plan.json").read_text()[:-40], '{"key": 1, "models": 3}'):
        (folder / "plan.json").write_text(text)
        with pytest.raises(MinigenError, match="damaged"):
            read_plan(folder)


@pytest.mark.parametrize(("models", "captions", "checks"), [(("a",), CAPTIONS, 4), (("a", "a"), CAPTIONS, 4),
                                                            (MODELS, (), 4), (MODELS, CAPTIONS, 0)])  # fmt: skip
def test_a_test_that_cannot_be_held_is_refused(models, captions, checks):
    with pytest.raises(MinigenError, match="Give"):
        new_plan("ab", 0, models, captions, checks)


def test_clips_of_a_caption_are_equally_loud_and_carry_no_name_inside(folder):
    quiet, loud = 0.01 * torch.randn(1, 16000), 0.3 * torch.randn(1, 16000)
    write_clips(folder, PLAN, 0, dict(zip(MODELS, (quiet, loud), strict=True)), 0.1 * torch.randn(1, 16000))
    levels = {}
    for model, name in PLAN.files(0).items():
        samples, rate = soundfile.read(clip_file(folder, name), dtype="float32")
        levels[model] = loudness(torch.from_numpy(samples), rate)
        assert b"mini" not in clip_file(folder, name).read_bytes()
    assert len(levels) == 4 and max(levels.values()) - min(levels.values()) < 0.1
    assert missing_rows(folder, PLAN) == list(range(1, 8))


# answers


def test_an_answer_is_in_the_table_when_it_is_acknowledged_and_names_no_model(folder):
    first = open_trials(folder, PLAN, "Anna")[0]
    assert store(folder, PLAN, "Anna", first.trial, "right")
    text = answers_file(folder, "anna").read_text()
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert text.splitlines()[1].startswith(f"anna,{first.trial},{first.left},{first.right},right,20")
    assert "mini" not in text


def test_a_listener_goes_on_where_she_stopped(folder):
    whole = open_trials(folder, PLAN, "anna")
    for shown in whole[:5]:
        store(folder, PLAN, "anna", shown.trial, "left")
    assert open_trials(folder, PLAN, "ANNA") == whole[5:]
    assert len(open_trials(folder, PLAN, "ben")) == len(whole)


def test_a_trial_is_answered_once(folder):
    first = open_trials(folder, PLAN, "anna")[0]
    assert store(folder, PLAN, "anna", first.trial, "left")
    assert not store(folder, PLAN, "anna", first.trial, "right")
    assert [row["answer"] for row in read_answers(folder)] == ["left"]


@pytest.mark.parametrize(
    ("listener", "trial", "answer"),
    [
        ("anna", "0" * 16, "left"),
        ("anna", None, "both"),
        ("anna", None, ""),
        ("../anna", None, "left"),
        ("", None, "left"),
        ("a" * 41, None, "left"),
        ("a/b", None, "left"),
        (".hidden", None, "left"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_plan_is_refused_and_nothing_is_written(folder, listener, trial, answer):
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(MinigenError):
        store(folder, PLAN, listener, trial or next(iter(PLAN.trials)), answer)
    assert sorted(folder.parent.rglob("*")) == before


def test_names_with_accents_and_spaces_are_names(folder):
    store(folder, PLAN, "José  Müller", next(iter(PLAN.trials)), "left")
    assert len(open_trials(folder, PLAN, "JOSE\u0301 müller")) == len(PLAN.trials) - 1


def test_a_half_written_answer_is_asked_again(folder):
    for shown in open_trials(folder, PLAN, "anna")[:2]:
        store(folder, PLAN, "anna", shown.trial, "left")
    file = answers_file(folder, "anna")
    file.write_bytes(file.read_bytes()[:-9])
    assert len(read_answers(folder)) == 2 and report([PLAN], read_answers(folder)).foreign == 0
    assert len(open_trials(folder, PLAN, "anna")) == len(PLAN.trials) - 1
    answer_all(folder, "anna", honest(MODELS[0]))
    assert len(read_answers(folder)) == len(PLAN.trials)


def test_killed_at_any_moment_no_acknowledged_answer_is_lost_and_none_is_doubled(folder):
    plan = new_plan("aa", 0, MODELS, [f"caption {n}" for n in range(100)], checks=4)
    rng, acknowledged, kills = np.random.default_rng(0), set(), 0
    while True:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for shown in open_trials(folder, plan, "anna"):
                    store(folder, plan, "anna", shown.trial, "left")
                    os.write(writing, f"{shown.trial}\n".encode())
            finally:
                os._exit(0)
        os.close(writing)
        if kills < 25:
            time.sleep(rng.uniform(0.005, 0.05))
            os.kill(child, signal.SIGKILL)
            kills += 1
        with os.fdopen(reading) as pipe:
            acknowledged |= {line.strip() for line in pipe if line.endswith("\n")}
        os.waitpid(child, 0)
        rows = [row["trial"] for row in read_answers(folder) if row["answer"] == "left"]
        assert acknowledged <= set(rows) and len(set(rows)) == len(rows)
        if not open_trials(folder, plan, "anna"):
            break
    assert kills >= 5 and set(rows) == set(plan.trials)


# the report


@pytest.mark.parametrize(("wins", "n"), [(0, 1), (1, 1), (7, 10), (10, 10), (130, 240)])
def test_the_interval_is_wilson_s(wins, n):
    from scipy.stats import binomtest

    expected = binomtest(wins, n).proportion_ci(method="wilson")
    assert wilson(wins, n) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_of_nothing_nothing_is_known_and_of_too_much_nothing_is_said():
    assert wilson(0, 0) == (0, 1)
    with pytest.raises(MinigenError, match="3 wins in 2"):
        wilson(3, 2)


def test_the_report_counts_who_was_preferred_whatever_the_side(folder):
    answer_all(folder, "anna", honest(MODELS[0]))
    answer_all(folder, "ben", honest(MODELS[0]))
    answer_all(folder, "clara", honest(MODELS[1]))
    found = report([PLAN], read_answers(folder))
    (row,) = found.preferences
    assert (row.first, row.second, row.wins, row.n) == (*MODELS, 16, 24)
    assert (row.low, row.high) == wilson(16, 24) and not found.left_out
    assert "24 judgements of 3 listeners" in str(found) and "16 of 24, 67% [47%, 82%]" in str(found)
    assert "no preference shown" in str(found)


def test_a_listener_who_fails_a_check_is_named_and_left_out(folder):
    answer_all(folder, "anna", honest(MODELS[0]))
    answer_all(folder, "deaf", lambda models: models[1])
    checks = [shown for shown in PLAN.shown_to("hasty") if PLAN.trials[shown.trial].models[0] == REAL_CHECK]
    rest = [shown for shown in PLAN.shown_to("hasty") if shown not in checks]
    store(folder, PLAN, "hasty", rest[0].trial, "left")
    found = report([PLAN], read_answers(folder))
    assert found.preferences[0].n == found.preferences[0].wins == 8
    assert found.left_out == ["deaf", "hasty"]
    assert "left out: deaf (0 of 4 attention checks right)" in str(found)
    assert "left out: hasty (no attention check answered yet)" in str(found)


def test_answers_of_several_people_merge_from_one_folder_several_files_or_several_tests(folder, tmp_path):
    for number, name in enumerate(("anna", "ben", "clara")):
        answer_all(folder, name, honest(MODELS[number % 2]))
    expected = report([PLAN], read_answers(folder)).preferences
    files = sorted((folder / "answers").iterdir())
    assert report([PLAN], read_answers(*files)).preferences == expected
    assert report([PLAN], read_answers(folder / "answers")).preferences == expected
    (tmp_path / "sent").mkdir()
    for file in files[1:]:
        file.rename(tmp_path / "sent" / file.name)
    assert report_of(folder, [tmp_path / "sent"]).preferences == expected
    other = new_plan("bb", 5, MODELS[::-1], CAPTIONS)
    write_plan(tmp_path / "other", other)
    answer_all(tmp_path / "other", "dora", honest(MODELS[0]), other)
    (both,) = report_of(folder, [tmp_path / "sent", tmp_path / "other"]).preferences
    assert (both.first, both.wins, both.n) == (MODELS[0], expected[0].wins + 8, expected[0].n + 8)


def test_the_same_answers_given_twice_count_once_and_those_of_another_test_not_at_all(folder, tmp_path):
    answer_all(folder, "anna", honest(MODELS[0]))
    write_plan(tmp_path / "other", other := new_plan("bb", 5, MODELS, CAPTIONS))
    answer_all(tmp_path / "other", "eve", honest(MODELS[1]), other)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(answers_file(folder, "anna").read_bytes())
    found = report_of(folder, [copy, tmp_path / "other" / "answers"])
    assert found.preferences[0].n == 8 and found.repeated == 12 and found.foreign == 12
    assert "12 repeated answers" in str(found) and "12 rows that do not belong" in str(found)


def test_a_row_whose_clips_are_not_those_of_its_trial_is_foreign(folder):
    answer_all(folder, "anna", honest(MODELS[0]))
    rows = read_answers(folder)
    rows[0] = {**rows[0], "left": rows[1]["left"]}
    rows[1] = {**rows[1], "answer": "both"}
    rows[2] = {**rows[2], "listener": "../x"}
    assert report([PLAN], rows).foreign == 3


def test_a_table_that_went_through_a_spreadsheet_is_read_and_left_as_it_is(folder, tmp_path):
    answer_all(folder, "anna", honest(MODELS[0]))
    text = answers_file(folder, "anna").read_text()
    sheet = tmp_path / "sheet.csv"
    sheet.write_bytes(b"\xef\xbb\xbf" + text.replace(",", ";").replace("\n", "\r\n").rstrip().encode())
    before = sheet.read_bytes()
    assert report([PLAN], read_answers(sheet)).preferences[0].n == 8
    assert sheet.read_bytes() == before


@pytest.mark.parametrize("content", [b"name,mark\nanna,1\n", b"\x89PNG\r\n\x1a\n", b"no table", b'"' * 200_000])
def test_what_is_no_table_of_answers_is_one_line(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(MinigenError, match="no table of answers") as caught:
        read_answers(tmp_path / "x.csv")
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(MinigenError, match="no answers"):
        read_answers(tmp_path / "nowhere")


def test_a_test_without_answers_has_a_report_too(folder):
    assert "0 judgements of 0 listeners" in str(report_of(folder))
    with pytest.raises(MinigenError, match="no listening test"):
        report_of(folder / "nowhere")


# making


class Counted:
    """Stands in for the loaders of the corpus and of the models; counts, and stops at a caption if told to."""

    def __init__(self):
        self.clips_loaded, self.models = 0, []

    def clips(self):
        self.clips_loaded += 1
        clips = [Clip(str(n), str(n), 0.0, f"A dog barks {n} times", "") for n in range(10)]
        return clips, 0.1 * torch.randn(10, 1, 4800, generator=torch.Generator().manual_seed(0))

    def model(self, name):
        self.models.append(name)
        return TextToAudio(standins.tiny_codec(), standins.WordEncoder(), standins.tiny_lm(len(name)))


def made(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (Path(folder) / "clips").iterdir()}


def recipe_for(folder, **given):
    return make.complete_recipe(folder, {"models": ["one", "three"], "seconds": 0.3, "clips": 10, **given})


def test_a_making_that_was_stopped_goes_on_and_ends_with_the_same_clips(tmp_path, monkeypatch):
    loaders, monkey_key = Counted(), "00" * 16
    monkeypatch.setattr(make.secrets, "token_hex", lambda _: monkey_key)
    plan = make.make_test(tmp_path / "whole", recipe_for(tmp_path / "whole"), loaders.clips, loaders.model)
    assert len(made(tmp_path / "whole")) == 10 * 2 + 4 * 2 and sorted(loaders.models) == ["one", "three"]

    written = []

    def stop(*asked):
        if len(written) == 9:
            raise KeyboardInterrupt
        written.append(write_clips(*asked))

    monkeypatch.setattr(make, "write_clips", stop)
    with pytest.raises(KeyboardInterrupt):
        make.make_test(tmp_path / "cut", recipe_for(tmp_path / "cut"), loaders.clips, loaders.model)
    monkeypatch.setattr(make, "write_clips", write_clips)
    first = {name: (tmp_path / "cut/clips" / name).stat().st_mtime_ns for name in made(tmp_path / "cut")}
    assert make.make_test(tmp_path / "cut", recipe_for(tmp_path / "cut"), loaders.clips, loaders.model) == plan
    assert made(tmp_path / "cut") == made(tmp_path / "whole")
    kept = [name for row in range(8) for name in plan.files(row).values()]
    assert all((tmp_path / f"cut/clips/{name}.flac").stat().st_mtime_ns == first[f"{name}.flac"] for name in kept)


def test_a_test_that_is_whole_loads_nothing_and_another_one_is_not_mixed_into_it(tmp_path):
    loaders = Counted()
    plan = make.make_test(tmp_path, recipe_for(tmp_path), loaders.clips, loaders.model)
    assert make.make_test(tmp_path, make.complete_recipe(tmp_path, {}), loaders.clips, loaders.model) == plan
    assert loaders.clips_loaded == 1 and len(loaders.models) == 2
    with pytest.raises(MinigenError, match=r"holds a test with clips 10, not 11"):
        recipe_for(tmp_path, clips=11)


def test_real_clips_and_one_model_at_two_strengths_may_take_part(tmp_path):
    recipe = recipe_for(tmp_path, models=["one", "one", "real"], guidance=[1.0, 3.0, 3.0])
    assert make.compared_models(recipe) == {
        "one, guidance 1": ("one", 1.0),
        "one, guidance 3": ("one", 3.0),
        "real clips": ("real", 3.0),
    }
    plan = make.make_test(tmp_path, recipe, (loaders := Counted()).clips, loaders.model)
    real = loaders.clips()[1][0]
    heard, _ = soundfile.read(clip_file(tmp_path, plan.files(0)["real clips"]), dtype="float32")
    assert np.corrcoef(heard, real.flatten())[0, 1] > 0.999 and loaders.models == ["one"]


@pytest.mark.parametrize("given", [{"models": ["one"]}, {"models": ["one", "one"]}, {"guidance": [1.0, 2.0, 3.0]}])
def test_models_that_cannot_be_compared_are_refused(tmp_path, given):
    with pytest.raises(MinigenError, match="Give"):
        make.compared_models(recipe_for(tmp_path, **given))


# the page


@pytest.fixture
def served(folder):
    """A running server, and a function that asks it: (method, path, body) -> (status, headers, content)."""
    sounds = dict(zip(MODELS, 0.1 * torch.randn(2, 1, 4000), strict=True))
    for row in range(len(CAPTIONS)):
        write_clips(folder, PLAN, row, sounds, 0.1 * torch.randn(1, 4000))
    (folder / "clips" / "secret.flac").write_bytes(b"not of the plan")
    with Server(folder, PLAN) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def ask(method, path, body=None, **headers):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            headers = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
            body = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in {**headers, "Content-Length": str(len(body or b""))}.items():
                connection.putheader(name, value)
            connection.endheaders(body or b"")
            reply = connection.getresponse()
            found = reply.status, reply.headers, reply.read()
            connection.close()
            return found

        ask.server = server
        yield ask
        server.shutdown()
        thread.join()


def test_a_whole_test_can_be_taken_through_the_page_and_nothing_told_to_it_names_a_model(served, folder):
    status, headers, page = served("GET", "/")
    assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
    _, _, told = served("POST", "/start", {"listener": "Anna"})
    trials = json.loads(told)["trials"]
    assert len(trials) == json.loads(told)["of"] == len(PLAN.trials)
    for word in (*MODELS, "mini-", "noise", "real clip", "attention check", "plan.json"):
        assert word.encode() not in page + told
    for trial in trials:
        for side in ("left", "right"):
            status, headers, sound = served("GET", f"/clips/{trial[side]}.flac")
            assert status == 200 and headers["Content-Type"] == "audio/flac" and sound[:4] == b"fLaC"
            assert b"mini" not in sound
        said = {"listener": "Anna", "trial": trial["trial"], "answer": "left"}
        assert json.loads(served("POST", "/answer", said)[2]) == {"added": True}
        assert trial["trial"] in answers_file(folder, "anna").read_text()
    assert json.loads(served("POST", "/start", {"listener": "anna"})[2])["trials"] == []


def test_after_a_closed_tab_the_page_gets_the_trials_that_are_open(served):
    trials = json.loads(served("POST", "/start", {"listener": "anna"})[2])["trials"]
    said = {"listener": "anna", "trial": trials[0]["trial"], "answer": "right"}
    assert json.loads(served("POST", "/answer", said)[2])["added"]
    assert not json.loads(served("POST", "/answer", said)[2])["added"]
    assert json.loads(served("POST", "/start", {"listener": "anna"})[2])["trials"] == trials[1:]


def test_many_answers_at_once_all_arrive_once(served, folder):
    trials = json.loads(served("POST", "/start", {"listener": "anna"})[2])["trials"]
    said = [{"listener": "anna", "trial": trial["trial"], "answer": "left"} for trial in trials] * 2
    threads = [threading.Thread(target=served, args=("POST", "/answer", one)) for one in said]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["trial"] for row in read_answers(folder)) == sorted(PLAN.trials)


@pytest.mark.parametrize(
    "path",
    ["/plan.json", "/../plan.json", "/clips/../plan.json", "/clips/%2e%2e/plan.json", "/clips/secret.flac",
     "/clips/", "/answers/anna.csv", "/clips/..%2fplan.json", "/etc/passwd", "/?x", "/clips\\..\\plan.json"],
)  # fmt: skip
def test_no_other_path_is_served(served, path):
    assert served("GET", path)[0] == 404


def test_another_site_s_page_is_not_answered(served):
    assert served("GET", "/", Host="evil.example:8765")[0] == 404
    assert served("POST", "/start", {"listener": "anna"}, Host="evil.example")[0] == 404
    assert served("POST", "/start", {"listener": "anna"}, Content_Type="text/plain")[0] == 404
    assert "Access-Control-Allow-Origin" not in served("GET", "/")[1]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"listener": "' + b"a" * 5000 + b'"}', b"[" * 4000,
             b'{"listener": ["anna"]}', b'{"listener": "anna", "trial": {}, "answer": 1}']
)  # fmt: skip
def test_what_is_no_answer_is_refused_in_a_sentence(served, folder, body):
    status, _, told = served("POST", "/answer", body)
    assert status == 400 and json.loads(told)["error"].endswith((".", "_."))
    assert not (folder / "answers").exists()


def test_a_clip_that_was_deleted_is_not_there_and_the_server_goes_on(served, folder):
    name = next(iter(PLAN.files(0).values()))
    clip_file(folder, name).unlink()
    assert served("GET", f"/clips/{name}.flac")[0] == 404
    assert served("GET", "/")[0] == 200


def test_a_place_that_cannot_be_written_is_told_to_the_listener(served, folder):
    (folder / "answers").write_text("a file where the folder should be")
    said = {"listener": "anna", "trial": next(iter(PLAN.trials)), "answer": "left"}
    status, _, told = served("POST", "/answer", said)
    assert status == 400 and "cannot write" in json.loads(told)["error"]


def test_the_server_listens_on_this_machine_only_and_a_taken_port_is_one_line(served, folder):
    assert served.server.server_address[0] == "127.0.0.1"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(MinigenError, match=r"port \d+ cannot be used.*--port"):
            Server(folder, PLAN, taken.getsockname()[1])


@pytest.mark.parametrize("name", ["İpek", "कविता", "ณัฐ", "Ann-Kathrin 2"])
def test_a_listener_may_be_called_in_any_script(name):
    assert check_name(check_name(name)) == check_name(name)


@pytest.mark.parametrize("name", ["", "..", "a/b", "\u0301", "a" * 41])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(MinigenError, match="listener's name"):
        check_name(name)
