"""A real browser, looking at a page as people do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

T = TypeVar("T")

SECONDS = 20.0

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # whoever tests in a container is root there
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


class Browser:
    """Chromium with one window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def size(self, width: int, height: int) -> None:
        """The window of a desk or, where it is narrow, the screen of a phone."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def scheme(self, name: str) -> None:
        """Light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, url: str) -> None:
        """Goes to a page; at a port that is new, as somebody who was never there."""
        self.heard()
        self.driver.get(url)

    def hurry(self) -> None:
        """Has the dashboard ask at once, as when a network is back, instead of in two seconds."""
        self.run("dispatchEvent(new Event('online'))")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], T]) -> T:
        """The first value of `condition` that is true."""
        return WebDriverWait(self.driver, SECONDS, 0.05).until(lambda _driver: condition())

    def find(self, selector: str) -> WebElement:
        """The first element, as soon as it is there."""
        return self.until(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector))[0]

    def find_all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "body") -> str:
        """What people read there. In one step: the page may be drawn again meanwhile."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def reads(self, said: str, selector: str = "body") -> str:
        """All of the text there, once it contains `said`."""
        self.until(lambda: said in self.text(selector))
        return self.text(selector)

    def number(self, selector: str, attribute: str) -> float:
        return float(self.find(selector).get_attribute(attribute) or "nan")

    def complaints(self) -> list[str]:
        """What it has written to its console since it was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[dict[str, Any]]:
        """What it has asked of servers since it was last asked: url, method, headers."""
        found = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [each["params"]["request"] for each in found if each["method"] == "Network.requestWillBeSent"]

    def heard(self) -> None:
        """Forgets complaints and requests."""
        self.complaints()
        self.requests()


@contextmanager
def browser() -> Iterator[Browser]:
    """Starts Chromium; skips the test where it is missing."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in _FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
