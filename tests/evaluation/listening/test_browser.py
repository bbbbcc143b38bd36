"""The page of the listening test in a real browser, where one is installed: heard, answered, stored, gone on with."""

import shutil
import threading

import pytest
import torch

from minigen.evaluation.listening.answers import read_answers
from minigen.evaluation.listening.make import write_clips
from minigen.evaluation.listening.plan import new_plan, write_plan
from minigen.evaluation.listening.server import Server

MODELS = ("mini-dropout, guidance 3", "mini-regularized, guidance 3")


@pytest.fixture
def browser():
    """Chromium without a window, driven by selenium; skipped where either is missing."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=900,700"):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as opened:
        yield opened


@pytest.fixture
def address(tmp_path):
    """A served test of two pairs and a check, with clips of 0.3 s."""
    plan = new_plan("ab", 0, MODELS, ["A dog barks", "Rain <b>falls</b>"], checks=1)
    write_plan(tmp_path, plan)
    for row in range(2):
        write_clips(tmp_path, plan, row, {m: 0.1 * torch.randn(1, 4800) for m in MODELS}, 0.1 * torch.randn(1, 4800))
    with Server(tmp_path, plan) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_person_can_take_the_test_close_the_tab_and_go_on(browser, address, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def part(name):
        return browser.find_element(By.ID, name)

    def until(true):
        WebDriverWait(browser, 30, poll_frequency=0.05).until(lambda _: true())

    def begin():
        browser.get(address)
        part("name").clear()
        part("name").send_keys("Anna")
        part("begin").click()
        until(lambda: part("test").is_displayed() or part("end").is_displayed())

    def judge(side):
        rows = len(read_answers(tmp_path)) if (tmp_path / "answers").exists() else 0
        assert not part(side).is_enabled(), "it can be answered before it was heard"
        for each in ("left", "right"):
            part(f"play{each}").click()
            until(lambda each=each: float(part(f"heard{each}").get_attribute("value")) == 1)
        until(part(side).is_enabled)
        part(side).click()
        until(lambda: not part("test").is_displayed() or not part(side).is_enabled())
        assert len(read_answers(tmp_path)) == rows + 1

    begin()
    assert part("count").text == "Pair 1 of 3" and not any(model in browser.page_source for model in MODELS)
    judge("left")
    begin()  # the tab was closed, and opened again
    assert part("count").text == "Pair 2 of 3"
    judge("right")
    judge("left")
    assert part("end").is_displayed() and not part("wrong").text
    assert [row["answer"] for row in read_answers(tmp_path)] == ["left", "right", "left"]
    begin()
    assert part("end").is_displayed()
    browser.get(address)
    part("name").clear()
    part("name").send_keys("../x")
    part("begin").click()
    until(lambda: "cannot be a listener" in part("wrong").text)
