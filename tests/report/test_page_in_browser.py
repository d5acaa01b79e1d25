"""The report in a real browser: Chromium without a window."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from medmap_monai.report.runs import read_run

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

ARTEFACTS = Path(os.environ.get("MEDMAP_TEST_ARTEFACTS", Path(__file__).parents[2] / "build" / "test-artefacts"))
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # WebGL on the processor
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def _find(*names: str) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary = _find("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    driver_path = _find("chromedriver", "chromium.chromedriver")
    if binary is None or driver_path is None:
        missing = "Chromium" if binary is None else "chromedriver"
        pytest.skip(f"{missing} is not installed; .ci/install_browser installs both")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver_path))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(browser, comparison):
    _resize(browser, 1280)
    browser.get(comparison[0].page.as_uri())
    _wait(browser, lambda: _text(browser, "#viewer-status") == "")
    return browser


def _wait(browser, condition, seconds: float = 40):
    return WebDriverWait(browser, seconds, poll_frequency=0.1).until(lambda _: condition())


def _text(browser, selector: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0]).textContent.trim()", selector)


def _click(browser, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def _click_at(browser, element) -> None:
    """A click of the mouse, in the middle of the window."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    element.click()


def _resize(browser, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def _column(table, index: int) -> list[float]:
    return [
        float(row.find_elements(By.CSS_SELECTOR, "th,td")[index].get_attribute("data-value")) for row in _rows(table)
    ]


def _rows(table):
    return table.find_elements(By.CSS_SELECTOR, "tbody tr")


def _severe(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def _screenshot(browser, name: str) -> None:
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    target = ARTEFACTS / f"{name}-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.png"
    assert browser.save_screenshot(str(target))
    assert target.stat().st_size > 10_000


def test_the_table_sorts_by_a_click_on_its_heading(page):
    table = page.find_element(By.CSS_SELECTOR, ".subset-block:not([hidden]) table.sortable")
    assert len(_rows(table)) == 3
    heading = table.find_elements(By.CSS_SELECTOR, "thead th")[2]
    for order in ("descending", "ascending"):
        _click_at(page, heading.find_element(By.TAG_NAME, "button"))
        assert heading.get_attribute("aria-sort") == order
        assert _column(table, 2) == sorted(_column(table, 2), reverse=order == "descending")
    _click_at(page, table.find_elements(By.CSS_SELECTOR, "thead button")[0])
    assert _column(table, 0) == [0, 1, 2]


def test_run_and_metric_choose_the_table_that_is_shown(page):
    _click(page, 'input[name="subset-run"][value="<other>"]')
    _click(page, 'input[name="subset-metric"][value="hd95"]')
    shown = page.find_elements(By.CSS_SELECTOR, ".subset-block:not([hidden])")
    assert [(b.get_attribute("data-run"), b.get_attribute("data-metric")) for b in shown] == [("<other>", "hd95")]


def test_expected_gain_follows_the_choice(page, run_folders):
    run = read_run(run_folders[0])
    gain = 100 * (run.means("dice", "WT")["flair+t2"] - run.means("dice", "WT")["flair"])
    first = page.find_element(By.CSS_SELECTOR, "#gain-answer .card li b").text
    assert float(first.replace("\N{MINUS SIGN}", "-").split()[0]) == pytest.approx(gain, abs=0.051)
    _click(page, 'input[name="gain-have"][value="t2"]')
    assert page.find_elements(By.CSS_SELECTOR, "#gain-answer .card li") == []  # nothing is missing any more


def test_the_viewer_switches_subsets(page):
    picture = "return document.getElementById('viewer-prediction').toDataURL()"
    before = page.execute_script(picture)
    assert _text(page, "#viewer-caption") == "Prediction from FLAIR + T2"
    _click(page, 'input[name="viewer-have"][value="t2"]')
    _wait(page, lambda: page.find_element(By.ID, "viewer-dice").get_attribute("data-subset") == "flair")
    assert _text(page, "#viewer-caption") == "Prediction from FLAIR"
    assert page.execute_script(picture) != before
    assert page.find_element(By.CSS_SELECTOR, 'input[name="viewer-have"][value="flair"]').is_enabled() is False
    for plane in (1, 2):
        _click(page, f'input[name="viewer-plane"][value="{plane}"]')
        assert page.execute_script("return document.getElementById('viewer-reference').width") > 4


def test_the_viewer_shows_the_other_run(page):
    picture = "return document.getElementById('viewer-{}').toDataURL()"
    reference, prediction = (page.execute_script(picture.format(name)) for name in ("reference", "prediction"))
    _click(page, 'input[name="viewer-case"][value="1"]')
    _wait(page, lambda: page.execute_script(picture.format("prediction")) != prediction)
    _click(page, 'input[name="viewer-case"][value="0"]')
    _click(page, 'input[name="viewer-have"][value="t2"]')
    _wait(page, lambda: page.find_element(By.ID, "viewer-dice").get_attribute("data-subset") == "flair")
    _click(page, 'input[name="viewer-plane"][value="2"]')
    _wait(page, lambda: page.execute_script(picture.format("reference")) == reference)


def test_three_dimensions_open_with_niivue(page):
    if not page.execute_script("return !!document.createElement('canvas').getContext('webgl2')"):
        pytest.skip("this browser offers no WebGL 2")
    _click(page, "#viewer-3d-open")
    _wait(page, lambda: _text(page, "#viewer-3d-status").startswith(("Prediction", "3-D could not")))
    assert _text(page, "#viewer-3d-status") == "Prediction from FLAIR"
    _click(page, 'input[name="viewer-3d-labels"][value="reference"]')
    _wait(page, lambda: _text(page, "#viewer-3d-status") == "Ground truth")


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_its_window(page, width):
    _resize(page, width)
    page.execute_script("window.scrollTo(0, 0)")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    _screenshot(page, f"report-{width}")
    page.execute_script("document.getElementById('viewer').scrollIntoView({behavior: 'instant'})")
    _screenshot(page, f"report-viewer-{width}")


def test_nothing_was_loaded_and_no_error_was_logged(page):
    loaded = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in loaded if not name.startswith(("data:", "blob:"))] == []
    assert _severe(page) == []
