"""The pages of a zoo, in a real browser and from a plain web server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.zoo.bundle_table import RECIPE
from tests.report.test_page_in_browser import browser  # noqa: F401
from tests.zoo.conftest import BUNDLES, NAME, serve


@pytest.fixture
def pages(zoo: Path) -> Path:
    result = CliRunner().invoke(app, ["bundle", "index", str(zoo)])
    assert result.exit_code == 0, result.output
    assert str(zoo / "index.html") in result.output.replace("\n", "")
    return zoo


def test_index_and_cards(pages: Path) -> None:
    index = (pages / "index.html").read_text(encoding="utf-8")
    (info,) = json.loads((pages / "model_info.json").read_text(encoding="utf-8")).values()
    assert info["sha256"] in index
    assert f'href="{NAME}_v0.1.0.zip" download' in index
    assert f"medmap bundle install {NAME} --from" in index
    for name in (p.stem for p in BUNDLES.glob("*.json")):
        is_recipe = not (
            BUNDLES / name / "models" / "model.pt"
        ).is_file()  # one with weights is listed once it is packed
        assert (f">{name}</a>" in index) == (is_recipe or name == NAME)
    assert index.count(RECIPE) >= 10
    for page in [pages / "index.html", *(pages / "cards").glob("*.html")]:
        text = page.read_text(encoding="utf-8")
        assert "src=http" not in text.replace('"', "")
        assert "<script" not in text
    card = (pages / "cards" / f"{NAME}_v0.1.0.html").read_text(encoding="utf-8")
    table = card[card.index('<table id="subsets">') : card.index("</table>", card.index('<table id="subsets">'))]
    assert table.count("<tr>") == 1 + 15
    assert "synthetic" in card


def test_without_recipes(zoo: Path) -> None:
    assert CliRunner().invoke(app, ["bundle", "index", str(zoo), "--no-recipes"]).exit_code == 0
    assert RECIPE not in (zoo / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def address(pages: Path) -> Iterator[str]:
    yield from serve(pages)


def test_in_a_browser(browser: Any, pages: Path, address: str, tmp_path: Path) -> None:  # noqa: F811
    """From disk and from a server: links lead to a card, back, and to the package."""
    import urllib.request

    for place in ((pages / "index.html").as_uri(), f"{address}/index.html"):
        browser.get(place)
        assert "missing modalities" in browser.find_element("css selector", "h1").text
        download = browser.find_element("css selector", "a[download]").get_attribute("href")
        browser.find_element("link text", NAME).click()
        assert "Expected Dice" in browser.find_element("css selector", "body").text
        browser.find_element("link text", "All bundles").click()
        assert "missing modalities" in browser.find_element("css selector", "h1").text
    with urllib.request.urlopen(download) as answer:
        assert answer.read() == (pages / f"{NAME}_v0.1.0.zip").read_bytes()
    installed = ["bundle", "install", NAME, "--from", address, "--to", str(tmp_path / "installed")]
    assert CliRunner().invoke(app, installed).exit_code == 0
    assert (tmp_path / "installed" / NAME / "models" / "model.pt").is_file()
