"""The pages of a zoo, in a real browser and from a plain web server; the starter by MONAI's and this command line."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.data.phantom import write_cohort
from medmap_monai.metrics.reliability import RELIABILITY_FILE
from medmap_monai.utils.files import file_sha256
from medmap_monai.utils.find_bundle import DEFAULT_BUNDLE
from medmap_monai.zoo.archive import unpack_archive
from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.bundle_table import RECIPE, SYNTHETIC
from medmap_monai.zoo.pack_installed import pack_installed
from tests.report.test_page_in_browser import ARTEFACTS, browser  # noqa: F401
from tests.zoo.conftest import BUNDLES, NAME, serve

VERSION = json.loads((BUNDLES / DEFAULT_BUNDLE / "configs" / "metadata.json").read_text())["version"]
STARTER = f"{DEFAULT_BUNDLE}_v{VERSION}"


@pytest.fixture(scope="module")
def pages(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo as one command makes it: a package that was there, the starter, and recipes."""
    zoo = tmp_path_factory.mktemp("pages") / "zoo"
    zoo.mkdir()
    for file in (package, package.with_name(package.name + ".sha256")):
        shutil.copyfile(file, zoo / file.name)
    result = CliRunner().invoke(app, ["bundle", "index", str(zoo)])
    assert result.exit_code == 0, result.output
    assert str(zoo / "index.html") in result.output.replace("\n", "")
    return zoo


@pytest.fixture(scope="module")
def address(pages: Path) -> Iterator[str]:
    yield from serve(pages)


def test_index_and_cards(pages: Path) -> None:
    index = (pages / "index.html").read_text(encoding="utf-8")
    info = json.loads((pages / "model_info.json").read_text(encoding="utf-8"))
    assert set(info) == {f"{NAME}_v0.1.0", STARTER}
    for stem, entry in info.items():
        assert entry["sha256"] in index
        assert f'href="{stem}.zip" download' in index
        assert f"medmap bundle install {entry['name']} --from" in index
    names = {path.stem for path in BUNDLES.glob("*.json")}
    assert all(f">{name}</a>" in index for name in names)
    assert index.count(SYNTHETIC) == 2  # the starter, and what was trained with the overlay phantom
    assert index.count(RECIPE) == len(names) - 2
    for page in [pages / "index.html", *(pages / "cards").glob("*.html")]:
        text = page.read_text(encoding="utf-8")
        assert "src=http" not in text.replace('"', "")
        assert "<script" not in text
        assert "<figure>" in text or page.name == "index.html"  # a card has a picture
    card = (pages / "cards" / f"{NAME}_v0.1.0.html").read_text(encoding="utf-8")
    table = card[card.index('<table id="subsets">') : card.index("</table>", card.index('<table id="subsets">'))]
    assert table.count("<tr") == 1 + 15
    assert "synthetic" in card
    assert (pages / "cards" / f"{NAME}_v0.1.0.png").stat().st_size > 10_000


def test_what_is_packed_is_the_installed_starter(pages: Path) -> None:
    """Its weights, and what an evaluation of them found if the bundle keeps one; packing again changes nothing."""
    installed = BundleFolder(BUNDLES / DEFAULT_BUNDLE)
    before = file_sha256(pages / f"{STARTER}.zip")
    again = pack_installed(pages, [installed.root])
    assert again == ([], [], [])
    assert file_sha256(pages / f"{STARTER}.zip") == before


def test_a_package_with_other_weights_is_left_alone(zoo: Path, small_bundle: Callable[[Path], Path]) -> None:
    bundle = small_bundle(zoo.parent)
    before = (zoo / f"{NAME}_v0.1.0.zip").read_bytes()
    assert pack_installed(zoo, [bundle]).notes == []  # the same weights
    weights = bundle / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes() + b"\0")
    (note,) = pack_installed(zoo, [bundle]).notes
    assert "other weights" in note
    assert (zoo / f"{NAME}_v0.1.0.zip").read_bytes() == before


def test_without_the_installed_ones(zoo: Path) -> None:
    assert CliRunner().invoke(app, ["bundle", "index", str(zoo), "--no-installed"]).exit_code == 0
    index = (zoo / "index.html").read_text(encoding="utf-8")
    assert RECIPE not in index
    assert DEFAULT_BUNDLE not in index


def test_in_a_browser(browser: Any, pages: Path, address: str, tmp_path: Path) -> None:  # noqa: F811
    """From disk and from a server: links lead to a card, back, and to the package; pictures are shown."""
    for place in ((pages / "index.html").as_uri(), f"{address}/index.html"):
        browser.get(place)
        assert "missing modalities" in browser.find_element("css selector", "h1").text
        ends = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert ends[0] <= ends[1]  # nothing hangs out of the window
        selector = f'a[download][href^="{NAME}"]'
        download = browser.find_element("css selector", selector).get_attribute("href")
        browser.find_element("link text", NAME).click()
        assert "Expected Dice" in browser.find_element("css selector", "body").text
        wide = browser.execute_script("return document.querySelector('figure img').naturalWidth")
        assert wide > 300
        browser.find_element("link text", "All bundles").click()
        assert "missing modalities" in browser.find_element("css selector", "h1").text
    with urllib.request.urlopen(download) as answer:
        assert answer.read() == (pages / f"{NAME}_v0.1.0.zip").read_bytes()
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    browser.set_window_size(1280, 1500)
    for name, page in (("zoo_index", "index.html"), ("zoo_card", f"cards/{NAME}_v0.1.0.html")):
        browser.get(f"{address}/{page}")
        browser.save_screenshot(str(ARTEFACTS / f"{name}.png"))
    installed = ["bundle", "install", NAME, "--from", address, "--to", str(tmp_path / "installed")]
    assert CliRunner().invoke(app, installed).exit_code == 0
    assert (tmp_path / "installed" / NAME / "models" / "model.pt").is_file()


def test_monai_downloads_the_starter_and_it_segments(
    pages: Path, address: str, tmp_path: Path, run_command: Callable[..., Any]
) -> None:
    """The real commands, from a plain web server; a study with two of its four files."""
    command = f"python -m monai.bundle download --name {DEFAULT_BUNDLE} --source monaihosting --url"
    run_command(*command.split(), f"{address}/{STARTER}.zip", "--bundle_dir", "downloaded", cwd=tmp_path)
    folder = tmp_path / "downloaded" / DEFAULT_BUNDLE
    assert file_sha256(folder / "models" / "model.pt") == file_sha256(BUNDLES / DEFAULT_BUNDLE / "models" / "model.pt")
    kept = (BUNDLES / DEFAULT_BUNDLE / "models" / RELIABILITY_FILE).is_file()
    assert (folder / "models" / RELIABILITY_FILE).is_file() == kept
    write_cohort(tmp_path / "STUDIES", "brats2020", 1, (40, 48, 40), seed=3, absent={"1": ["t1", "t1ce"]})
    predict = f"medmap predict STUDIES --bundle downloaded/{DEFAULT_BUNDLE} --output OUT --device cpu"
    run_command(*predict.split(), cwd=tmp_path)
    assert len(list((tmp_path / "OUT").glob("*_seg.nii.gz"))) == 1


def test_the_starter_is_a_model_repository(pages: Path, tmp_path: Path) -> None:
    """Unpacked it is what the hub's own validators take: weights, licence, card with results of every subset."""
    pytest.importorskip("huggingface_hub", reason="needs huggingface_hub, of the extra 'test'")
    from tests.zoo.test_hugging_face import check_files, read_card

    folder = unpack_archive(pages / f"{STARTER}.zip", tmp_path / "installed", DEFAULT_BUNDLE)
    card = read_card(folder)
    assert card.data.model_name == DEFAULT_BUNDLE
    assert file_sha256(folder / "models" / "model.pt") in card.text
    assert len([line for line in card.text.splitlines() if re.match(r"\| (flair|t1ce|t1|t2)\b", line)]) == 15
    told = " ".join(card.text.split())
    assert "No image of a patient was used" in told
    assert "Research only" in told
    check_files(folder)
