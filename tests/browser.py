"""A chromium without a window, for tests of pages."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

PROGRAMS = ("chromium", "chromedriver")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card
    "--window-size=1200,900",
)
PATIENCE = 120
"""Seconds: a processor draws in place of a graphics card, and other tests run beside it."""


@contextmanager
def chromium(downloads: Path) -> Iterator[webdriver.Chrome]:
    """A browser that notes what it is asked to load and what is wrong; skips the test where there is none.

    With the environment variable CI set a missing browser fails: there it is to be installed.

    Args:
        downloads: folder for what pages give to save.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        said = f"no {' and no '.join(missing)}: apt-get install chromium chromium-driver"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(said)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in OPTIONS:
        options.add_argument(option)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(PATIENCE)
    driver.set_page_load_timeout(PATIENCE)
    try:
        yield driver
    finally:
        driver.quit()


def requested(driver: webdriver.Chrome) -> list[str]:
    """What pages asked for since the last call, but for data that stand in them."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [found["params"] for found in messages if found["method"] == "Network.requestWillBeSent"]
    return [found["request"]["url"] for found in sent if not found["request"]["url"].startswith("data:")]


def complaints(driver: webdriver.Chrome) -> list[str]:
    """Errors and warnings of the console since the last call; the drawing's own about its speed are none."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["source"] != "rendering"]
