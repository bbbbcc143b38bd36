"""JupyterLab in a real browser: a server on this machine, a headless Chromium, and functions that use the controls.

    with open_lab(folder) as lab:
        lab.run("notebook.ipynb")       open it, run its cell, wait for what it shows
        lab.controls()                  sliders, menus, boxes and buttons on the page
        lab.move(kind, control)         as a hand would: keys and clicks
        lab.shown()                     what the kernel shows: text, pictures, sounds

Browser and driver are found by name (Debian: chromium, chromium-driver; GitHub's machines have Chrome). Selenium gets
both paths, because otherwise it looks for a driver on the network.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 240  # seconds, for a busy machine
CONTROLS = {  # a control that a reader can move -> where it is
    "slider": ".noUi-handle", "menu": ".widget-dropdown select", "box": ".widget-text input[type=text]",
    "number": ".widget-text input[type=number]", "button": "button.jupyter-button", "tick": ".widget-checkbox input",
    "choice": ".widget-radio-box input",
}  # fmt: skip


def browser_and_driver() -> tuple[str, str] | None:
    """Paths of a Chromium and of its driver, None where one of them is missing."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def open_lab(folder: Path):
    """A `Lab` on the notebooks of a folder; server and browser end with the block."""
    from selenium import webdriver

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = _serve(folder, port)
    browser, driver = browser_and_driver()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1300,1500",
                 "disable-background-networking", "mute-audio"):  # fmt: skip
        options.add_argument(f"--{flag}")
    chrome = None
    try:
        chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        chrome.set_page_load_timeout(PATIENCE)
        yield Lab(chrome, f"http://127.0.0.1:{port}")
    finally:
        if chrome:
            chrome.quit()
        server.terminate()
        server.wait(30)


def _serve(folder: Path, port: int) -> subprocess.Popen:
    settings = folder / ".settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    environment = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"), "HF_HUB_OFFLINE": "1",
                   "JUPYTER_CONFIG_DIR": str(folder / ".config")}  # fmt: skip
    command = ["jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
               "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=",
               "--ServerApp.port_retries=0"]  # fmt: skip
    log = open(folder / "server.log", "w")
    server = subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=log, env=environment)
    for _ in range(4 * PATIENCE):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5)
            return server
        except OSError:
            time.sleep(0.25)
            if server.poll() is not None:
                break
    server.kill()
    raise RuntimeError(f"JupyterLab did not start: {(folder / 'server.log').read_text()[-1000:]}")


class Lab:
    """A page of JupyterLab, and what a reader does on it."""

    def __init__(self, chrome, address: str):
        self.chrome, self.address = chrome, address

    def run(self, name: str, shown: str = ".jupyter-widgets") -> None:
        """Open a notebook of one cell, run it, and wait until `shown` is on the page."""
        from selenium.webdriver.common.keys import Keys

        self.chrome.get(f"{self.address}/doc/tree/{name}?reset")
        cell = self.wait(lambda: self.find(".jp-CodeCell .cm-content"))
        self.wait(self.idle)
        cell[0].click()
        cell[0].send_keys(Keys.SHIFT, Keys.ENTER)
        self.wait(lambda: self.find(f".jp-OutputArea-output {shown}") and self.idle())

    def idle(self) -> bool:
        """Whether the kernel is there and has nothing to do."""
        return "| Idle" in self.chrome.execute_script("return document.querySelector('#jp-main-statusbar').innerText")

    def find(self, where: str) -> list:
        """What of this kind is on the page and can be seen."""
        return [found for found in self.chrome.find_elements("css selector", where) if found.is_displayed()]

    def controls(self) -> list[tuple[str, object]]:
        """(kind, element) of each control."""
        return [(kind, found) for kind, where in CONTROLS.items() for found in self.find(f".jp-OutputArea {where}")]

    def move(self, kind: str, control) -> None:
        """Move a control as a hand would: another value than it has."""
        from selenium.webdriver.common.keys import Keys
        from selenium.webdriver.support.select import Select

        self.chrome.execute_script("arguments[0].scrollIntoView({block: 'center'})", control)
        if kind == "slider":
            low = control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemin")
            control.send_keys(Keys.ARROW_RIGHT if low else Keys.ARROW_LEFT)
        elif kind == "menu":
            menu = Select(control)
            here = menu.options.index(menu.first_selected_option)
            menu.select_by_index((here + 1) % len(menu.options))
        elif kind in ("box", "number"):
            control.send_keys(Keys.END, "1" if kind == "number" else " softly", Keys.ENTER)
        else:
            control.click()

    def shown(self) -> str:
        """What the kernel shows below the cells: text, pictures and sounds, without the controls themselves."""
        return self.chrome.execute_script(
            "return [...document.querySelectorAll('.jp-OutputArea-output')].flatMap(area => ["
            "...[...area.querySelectorAll('.widget-html, .widget-label, pre')].map(e => e.innerText),"
            "...[...area.querySelectorAll('img, audio, source')].map(e => e.src.length + e.src.slice(-200))]).join()"
        )

    def picture(self, path: Path) -> bytes:
        """A picture of the page."""
        self.chrome.save_screenshot(str(path))
        return path.read_bytes()

    def wait(self, looking, patience: float = PATIENCE):
        """Look until there is something; returns it."""
        from selenium.common.exceptions import StaleElementReferenceException, WebDriverException

        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                if found := looking():
                    return found
            except (StaleElementReferenceException, WebDriverException):
                pass
            time.sleep(0.25)
        raise TimeoutError(f"nothing came within {patience} s; the page shows {self.shown()[-800:]!r}")
