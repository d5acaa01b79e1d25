from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser

import pytest

from medmap_monai.report.page import PAGE_LIMIT, write_report
from medmap_monai.report.runs import read_run


class _Links(HTMLParser):
    """Everything that a browser would load or that lacks a description."""

    def __init__(self) -> None:
        super().__init__()
        self.remote: list[str] = []
        self.ids: list[str] = []
        self.images_without_text = 0

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.remote += [v for k, v in attrs if k in ("src", "href") and not v.startswith(("data:", "#"))]
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "img" and not values.get("alt"):
            self.images_without_text += 1


def test_the_page_is_complete_in_itself(comparison):
    report, text = comparison
    links = _Links()
    links.feed(text)
    assert links.remote == []
    assert links.images_without_text == 0
    assert len(set(links.ids)) == len(links.ids)
    assert not re.search(r"@import|url\((?!data:)", text)
    assert report.size == len(text.encode()) < PAGE_LIMIT
    sections = (
        "glance table subsets comparison distributions contribution gain pictures viewer features training method"
    )
    assert set(sections.split()) <= set(links.ids)


def test_what_a_reader_must_know_is_said(comparison):
    _, text = comparison
    assert "Phantom (synthetic) data." in text
    assert "n = 6 cases" in text
    assert "BraTS20_Training_007" in text  # the failed case
    assert "no label" in text
    assert "Phantom &lt;of&gt; a test" in text  # names are text, never markup
    assert "<other>" not in text
    assert "a prediction below 40 voxels is emptied" in text
    assert "WT = NCR \N{UNION} ED \N{UNION} ET" in text


def test_figures_and_tables_for_papers_lie_beside_the_page(comparison):
    report, _ = comparison
    names = {path.name for path in report.folder.iterdir()}
    assert {"table_dice.csv", "table_dice.tex", "table_hd95.csv", "contribution.png", "contribution.svg"} <= names
    for kind in ("heat_map_dice_plain", "distribution_hd95__other_", "grid_plain", "tsne_plain", "balance_plain"):
        assert {f"{kind}.png", f"{kind}.svg"} <= names
    assert not [name for name in names if name.startswith(".tmp")]
    assert all(path.stat().st_size > 500 for path in report.folder.glob("*.png"))


def test_numbers_of_the_page_are_those_of_the_summary(comparison, run_folders):
    _, text = comparison
    run = read_run(run_folders[0])
    entry = run.score("dice", "WT", "flair+t2")
    assert f'data-value="{entry["mean"]}"' in text
    assert f"<b>{100 * entry['mean']:.1f}</b>" in text
    assert f"{100 * run.average('dice', 'WT')['mean']:.2f}" in text


def test_a_bare_run_has_a_page_too_and_it_is_the_same_every_time(run_folders, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(run_folders[1], folder, ignore=shutil.ignore_patterns("maps", "failures.csv", "cases"))
    texts = []
    for name in ("one.html", "two.html"):
        report = write_report([read_run(folder)], tmp_path / name, title="Bare")
        texts.append(report.page.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    for absent in ('id="viewer"', 'id="pictures"', 'id="training"', 'id="features"', 'id="comparison"'):
        assert absent not in texts[0]
    assert "<h1>Bare</h1>" in texts[0]


def test_a_wrong_log_is_named(run_folders, tmp_path):
    folder = shutil.copytree(run_folders[1], tmp_path / "wrong")
    (folder / "training.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"training\.csv has columns \['a', 'b'\]"):
        write_report([read_run(folder)], tmp_path / "page.html", viewer=False)
