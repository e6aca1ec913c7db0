"""The HTML report in a real Chromium: how it looks, what it asks for, what its keys do, and what cannot run in it.

Screenshots are kept in the directory that SCREENSHOTS names, or in `build/screenshots`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from replay.demo.run import run_demo
from replay.demo.shoppers import Crowd
from replay.report.html import render
from tests.report.dossiers import dossier, hostile
from tests.report.test_html import many

pytestmark = pytest.mark.real

VERDICTS = ("Fail", "Invalid")
"""What the shop's new build earns; on a machine that other tests keep busy its run may be no faithful one."""

Show = Callable[..., webdriver.Chrome]


@pytest.fixture(scope="module")
def chrome() -> Iterator[webdriver.Chrome]:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser, "tests/system-packages installs Chromium"
    assert driver, "tests/system-packages installs Chromium's driver"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.fixture
def show(chrome: webdriver.Chrome, tmp_path: Path) -> Iterator[Show]:
    """`show(html, width=, dark=, script=)`: opens the page from disk. Afterwards it must have been quiet."""

    def show(html: str, *, width: int = 1400, dark: bool = False, script: bool = True) -> webdriver.Chrome:
        page = tmp_path / "report.html"
        page.write_text(html, encoding="utf-8")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        chrome.get(page.as_uri())
        return chrome

    for kind in ("browser", "performance"):
        chrome.get_log(kind)
    yield show
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert chrome.get_log("browser") == []
    assert [url for url in asked(chrome) if not url.startswith((tmp_path.as_uri(), "data:"))] == []


def asked(chrome: webdriver.Chrome) -> list[str]:
    """Every address that was asked for since the log was last read."""
    messages = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.fixture(scope="module")
def shop_report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `replay demo` ends with: real captures, runs and findings."""
    out = tmp_path_factory.mktemp("shop") / "demo"
    outcome = run_demo(out, lambda line: None, Crowd(shoppers=20, visits=3, think=0.05), speed=1.5)
    assert outcome.text.endswith(f"{out / 'report.html'}\n")
    return (out / "report.html").read_text(encoding="utf-8")


def screenshot(chrome: webdriver.Chrome, name: str) -> bytes:
    directory = Path(os.environ.get("SCREENSHOTS", "build/screenshots"))
    directory.mkdir(parents=True, exist_ok=True)
    taken = chrome.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": _whole(chrome)}
    )
    image = base64.b64decode(taken["data"])
    (directory / f"{name}.png").write_bytes(image)
    return image


def _whole(chrome: webdriver.Chrome) -> dict[str, Any]:
    width, height = chrome.execute_script(
        "const e = document.documentElement; return [e.clientWidth, e.scrollHeight]"
    )
    return {"x": 0, "y": 0, "width": width, "height": min(height, 12_000), "scale": 1}


def shown(chrome: webdriver.Chrome) -> list[str]:
    """The kinds of the findings that can be seen."""
    cards = chrome.find_elements(By.CSS_SELECTOR, "details.card")
    return [card.get_attribute("data-kind") or "" for card in cards if card.is_displayed()]


def axe(chrome: webdriver.Chrome) -> list[str]:
    """What breaks the accessibility rules of WCAG 2 AA, in axe-core's eyes."""
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    found = Axe().run(chrome, options={"runOnly": {"type": "tag", "values": tags}})
    return [
        f"{rule['id']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_it_fits_in_the_light_and_in_the_dark(show: Show, shop_report: str, width: int, dark: bool) -> None:
    chrome = show(shop_report, width=width, dark=dark)
    screenshot(chrome, f"report-{width}-{'dark' if dark else 'light'}")
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
    ground = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(ground.removeprefix("rgb(").split(",")[0])
    assert red < 64 if dark else red > 192
    heading = chrome.find_element(By.TAG_NAME, "h1")
    assert heading.text.startswith(VERDICTS)
    assert heading.location["y"] < 200
    small = chrome.execute_script(
        "return [...document.querySelectorAll('.chart text')].filter(e => e.getBoundingClientRect().height < 9).length"
    )
    assert small == 0, "labels of charts too small to read"


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (1400, True), (390, False)])
def test_it_keeps_the_rules_of_accessibility(show: Show, shop_report: str, width: int, dark: bool) -> None:
    chrome = show(shop_report, width=width, dark=dark)
    chrome.execute_script("for (const e of document.querySelectorAll('details')) e.open = true")
    assert axe(chrome) == []


def test_filters_choose_among_findings_and_say_how_many(show: Show) -> None:
    chrome = show(render(dossier()))
    count = chrome.find_element(By.ID, "count")
    assert shown(chrome) == ["status", "type", "slower", "value"]  # the last group, noise, is closed
    assert count.text == "5 findings"
    Select(chrome.find_element(By.NAME, "endpoint")).select_by_visible_text("GET /orders/{id}")
    assert shown(chrome) == ["type", "value", "value"]
    assert count.text == "3 of 5 findings"
    Select(chrome.find_element(By.NAME, "judgement")).select_by_visible_text("noise")
    assert shown(chrome) == ["value"]
    Select(chrome.find_element(By.NAME, "kind")).select_by_visible_text("status")
    assert shown(chrome) == []
    assert count.text == "0 of 5 findings"
    chrome.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    WebDriverWait(chrome, 5).until(lambda chrome: count.text == "5 findings")
    chrome.find_element(By.NAME, "text").send_keys("ITEMS[*].price")
    assert shown(chrome) == ["type"]


def test_the_keyboard_is_enough(show: Show) -> None:
    chrome = show(render(dossier()))

    def press(*keys: str) -> None:
        webdriver.ActionChains(chrome).send_keys(*keys).perform()

    def focused() -> Any:
        return chrome.switch_to.active_element

    press(Keys.TAB)
    assert focused().text == "Skip to the findings"
    assert focused().is_displayed()
    press(Keys.ENTER)
    assert focused().get_attribute("id") == "findings"
    press("j")
    card = focused().find_element(By.XPATH, "..")
    assert (focused().tag_name, card.get_attribute("data-kind")) == ("summary", "status")
    assert card.get_attribute("open")
    press(Keys.ENTER)
    assert not card.get_attribute("open")
    press("j", "j", "k")
    assert focused().find_element(By.XPATH, "..").get_attribute("data-kind") == "type"
    press("/", "price")
    assert focused().get_attribute("name") == "text"
    assert shown(chrome) == ["type"]
    press(Keys.ESCAPE)
    WebDriverWait(chrome, 5).until(lambda chrome: len(shown(chrome)) == 4)
    outline = chrome.execute_script(
        "document.querySelector('summary').focus(); return getComputedStyle(document.activeElement).outlineStyle"
    )
    assert outline != "none"


def test_a_finding_has_an_address(show: Show) -> None:
    chrome = show(render(dossier()))
    noise = chrome.find_element(By.CSS_SELECTOR, ".card.noise")
    assert not noise.is_displayed()
    chrome.execute_script("location.hash = arguments[0]", noise.get_attribute("id"))
    WebDriverWait(chrome, 5).until(lambda chrome: noise.get_attribute("open") and noise.is_displayed())


def test_what_a_build_says_does_not_run(show: Show) -> None:
    chrome = show(render(hostile()))
    chrome.execute_script("for (const e of document.querySelectorAll('details')) e.open = true")
    # A script would have raised an alert, or left a complaint of the policy in the log that `show` reads.
    assert chrome.execute_script("return document.scripts.length") == 1
    assert chrome.find_elements(By.CSS_SELECTOR, "img, iframe, object, [onload], [onerror]") == []
    assert "alert(1)" in chrome.find_element(By.CSS_SELECTOR, ".card").text


def test_without_scripts_verdict_and_findings_can_be_read(show: Show, shop_report: str) -> None:
    chrome = show(shop_report, script=False)
    assert chrome.find_element(By.TAG_NAME, "h1").text.startswith(VERDICTS)
    assert not chrome.find_element(By.ID, "filters").is_displayed()
    cards = chrome.find_elements(By.CSS_SELECTOR, ".card.regression")
    assert len(cards) >= 5
    assert all(card.is_displayed() for card in cards)
    closed = next(card for card in cards if not card.get_attribute("open"))
    assert not closed.find_element(By.CLASS_NAME, "cmd").is_displayed()
    closed.find_element(By.TAG_NAME, "summary").click()
    assert "replay show" in closed.find_element(By.CLASS_NAME, "cmd").text
    noise = chrome.find_element(By.CSS_SELECTOR, "details.group")
    noise.find_element(By.TAG_NAME, "summary").click()
    assert noise.find_element(By.CLASS_NAME, "card").is_displayed()


@pytest.mark.parametrize("width", [1400, 390])
def test_long_words_stay_inside(show: Show, width: int) -> None:
    chrome = show(render(many(20, "x" * 300)), width=width)
    chrome.execute_script("for (const e of document.querySelectorAll('details')) e.open = true")
    screenshot(chrome, f"long-words-{width}")
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_thousand_findings_can_be_filtered(show: Show) -> None:
    chrome = show(render(many(1000, "price", slow=False)))
    milliseconds = chrome.execute_script(
        "const field = document.querySelector('[name=text]'); field.value = 'f77';"
        "const began = performance.now();"
        "field.dispatchEvent(new Event('input', { bubbles: true }));"
        "document.body.getBoundingClientRect(); return performance.now() - began"
    )
    assert chrome.find_element(By.ID, "count").text == "11 of 1000 findings"
    assert milliseconds < 10_000  # mostly the first layout; the machine may be busy with other tests
