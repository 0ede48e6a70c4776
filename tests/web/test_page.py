"""The page in a real browser: upload, restore, compare, download, mistakes, two users.

Needs Chromium and its driver (Debian: chromium, chromium-driver), selenium and gradio.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from rvrt_jax.data.clips import BUNDLED

ROOT = Path(__file__).parents[2]
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--window-size=1200,840"
)
STARTS = 5
PATIENCE = 300  # seconds; the machine may be busy, and the first job compiles
# A shell lets what it starts in the background ignore Ctrl-C, and so would the server.
SERVER = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from rvrt_jax.cli import main
main()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is missing"),
]


@contextlib.contextmanager
def started(*options: str):
    """Starts a server, again where gradio's 5 seconds were too few; yields it and its address."""
    command = [sys.executable, "-c", SERVER, "web", "--port", "0", *options]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    for _ in range(STARTS):
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as server:
            if said := re.match(r"open (http://127.0.0.1:\d+) in", server.stdout.readline()):
                yield server, said[1]
                return
    raise AssertionError(f"the server did not start {STARTS} times: see above")


@pytest.fixture(scope="module")
def address():
    """A server that takes small files."""
    with started("--frames", "6", "--megabytes", "1") as (server, url):
        yield url
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE) == 0


@pytest.fixture
def user(address, tmp_path):
    """Opens further browsers, each with a download folder of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    opened = []

    def open_browser() -> "User":
        folder = tmp_path / f"downloads_{len(opened)}"
        folder.mkdir()
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in FLAGS.split():
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
        browser = webdriver.Chrome(options=options, service=Service(DRIVER))
        opened.append(browser)
        browser.get(address)
        return User(browser, folder)

    yield open_browser
    for browser in opened:
        browser.quit()


class User:
    """Someone with a browser."""

    def __init__(self, browser, folder: Path) -> None:
        self.browser, self.folder = browser, folder

    def find(self, selector: str, *, gone: bool = False):
        """Waits for an element, or for its absence."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = self.browser.find_elements("css selector", selector)
            if bool(found) != gone:
                return None if gone else found[0]
            time.sleep(0.1)
        raise AssertionError(f"{selector} {'stays' if gone else 'never appears'}")

    def upload(self, *paths: Path) -> None:
        self.find("#upload input[type=file]").send_keys("\n".join(map(str, paths)))
        self.find("#upload .file-preview")

    def restore(self) -> None:
        self.find("#restore").click()

    def result(self) -> str:
        """Waits for the download; returns its address."""
        return self.find("#download a").get_attribute("href")

    def message(self, kind: str) -> str:
        """Waits for a message of the kind "error" or "info", which fades in."""
        self.find(f".toast-body.{kind}")
        time.sleep(0.5)
        return self.find(f".toast-body.{kind}").get_property("textContent")


def film(path: Path, shade: int, frames: int = 4) -> Path:
    """Writes a picture with a light square on a ground of `shade` that moves."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (80, 48))
    for index in range(frames):
        frame = np.full((48, 80, 3), shade, np.uint8)
        frame[16:32, 10 + 4 * index : 30 + 4 * index] = 250
        writer.write(frame)
    writer.release()
    return path


def fetched(address: str, path: Path) -> np.ndarray:
    """Downloads a film and returns its first frame."""
    with urllib.request.urlopen(address) as answer:
        path.write_bytes(answer.read())
    return cv2.VideoCapture(str(path)).read()[1]


def test_upload_restore_compare_download(user, tmp_path):
    someone = user()
    someone.upload(film(tmp_path / "square.mp4", 60))
    someone.restore()
    address = someone.result()
    frame = fetched(address, tmp_path / "result.mp4")
    assert frame.shape == (192, 320, 3)
    assert abs(int(frame[4, 4, 0]) - 60) < 8 and frame[96, 80, 0] > 235
    someone.find("#download a").click()
    deadline = time.monotonic() + PATIENCE
    while not (done := list(someone.folder.glob("*.mp4"))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert done[0].name == "square_restored.mp4"
    images = someone.browser.find_elements("css selector", "#slider img")
    assert len(images) >= 2 and all(image.get_property("naturalWidth") == 320 for image in images)


def test_the_slider_moves(user, tmp_path):
    """Leaves the picture of the page that the docs show, where UPDATE_SCREENSHOT is set."""
    from selenium.webdriver.common.action_chains import ActionChains

    clip = tmp_path / "cup_hand.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (80, 48))
    for path in sorted((BUNDLED / "cup_hand").glob("*.png"))[:4]:
        writer.write(cv2.resize(cv2.imread(str(path)), (80, 48), interpolation=cv2.INTER_AREA))
    writer.release()
    someone = user()
    someone.upload(clip)
    someone.restore()
    someone.result()
    handle = someone.find("#slider .outer, #slider .inner")
    before = handle.rect["x"]
    ActionChains(someone.browser).drag_and_drop_by_offset(handle, -60, 0).perform()
    assert abs(someone.find("#slider .outer, #slider .inner").rect["x"] - before + 60) < 20
    picture = tmp_path / "web.png"
    assert someone.browser.save_screenshot(str(picture))
    if "UPDATE_SCREENSHOT" in os.environ:
        shutil.copyfile(picture, ROOT / "docs/web.png")


def test_mistakes_are_explained_on_the_page(user, tmp_path):
    someone = user()
    someone.restore()
    assert "Drop a video or images first" in someone.message("error")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 1000)
    someone.browser.refresh()
    someone.upload(broken)
    someone.restore()
    assert "broken.mp4" in someone.message("error")
    someone.browser.refresh()
    someone.upload(film(tmp_path / "long.mp4", 60, frames=8))
    frames = someone.find("#frames input")
    frames.clear()
    frames.send_keys("8")
    someone.restore()
    assert "restores 1 to 6 at once. Choose a shorter part" in someone.message("error")


def test_a_large_file_is_refused(user, tmp_path):
    someone = user()
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2 * 2**20))
    someone.find("#upload input[type=file]").send_keys(str(large))
    assert "1.0 MB" in someone.message("error") or "maximum" in someone.message("error")


def test_a_part_of_a_long_film_says_so(user, tmp_path):
    someone = user()
    someone.upload(film(tmp_path / "long.mp4", 60, frames=8))
    someone.restore()
    assert "restored 6 of the film's 8 frames" in someone.message("info")


def test_two_users_get_their_own_films(user, tmp_path):
    dark, light = user(), user()
    dark.upload(film(tmp_path / "night_film.mp4", 20))
    light.upload(film(tmp_path / "beach_film.mp4", 160))
    dark.restore()
    light.restore()
    results = {name: one.result() for name, one in (("night", dark), ("beach", light))}
    for name, shade in (("night", 20), ("beach", 160)):
        assert f"{name}_film_restored.mp4" in results[name]
        assert abs(int(fetched(results[name], tmp_path / f"{name}_out.mp4")[4, 4, 0]) - shade) < 8
    for other, one in (("beach", dark), ("night", light)):
        assert f"{other}_film" not in one.browser.page_source


def test_files_of_the_server_are_not_handed_out(address, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (secret, ROOT / "pyproject.toml", "/etc/hostname"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{address}/gradio_api/file={path}")
        assert error.value.code in (403, 404)
        error.value.close()
