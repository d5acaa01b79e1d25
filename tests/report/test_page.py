from __future__ import annotations

import contextlib
import re
import shutil
from html.parser import HTMLParser

import pytest

from medmap_monai.engines.subset_evaluator import EvaluationIncompleteError
from medmap_monai.networks.unet import ModalityUNet
from medmap_monai.report.page import PAGE_LIMIT, write_report
from medmap_monai.report.runs import read_run
from medmap_monai.transforms.pipelines import eval_transforms
from tests.engines.test_subset_evaluator import make_evaluator, write_study


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


def _evaluate(tmp_path, **kwargs):
    """An evaluation of two studies, one of them incomplete, with options of its own."""
    cohort = tmp_path / "cohort"
    write_study(cohort, 1, ("flair", "t2"))
    write_study(cohort, 2, ("flair",), label=kwargs.pop("label", True))
    network = ModalityUNet(3, in_channels=2, out_channels=4, channels=(4, 8), deep_supervision=0)
    options = {"network": network, "modalities": ("flair", "t2"), "transform": eval_transforms(("flair", "t2"))}
    evaluator = make_evaluator(cohort, tmp_path / "run", **options, **kwargs)
    with contextlib.suppress(EvaluationIncompleteError):
        evaluator.run()
    return write_report([read_run(tmp_path / "run")], tmp_path / "page.html").page.read_text(encoding="utf-8")


def test_incomplete_studies_and_excluded_cases_have_a_page(tmp_path):
    text = _evaluate(tmp_path, edge_cases={"hd95_empty": "nan"}, minimum_voxels={"ET": 10**6}, keep_maps=0)
    assert "the case is left out and counted" in text
    assert "n = 1 case with every subset" in text
    assert ">2<" in text  # FLAIR alone was evaluated on both


def test_some_subsets_only(tmp_path):
    text = _evaluate(tmp_path, subsets=["flair"], keep_maps=1)
    assert 'id="contribution"' not in text
    assert 'id="gain"' not in text


def test_a_run_in_which_every_case_failed(tmp_path):
    def broken(record):
        raise ValueError("the <scanner> was off")

    cohort = tmp_path / "cohort"
    write_study(cohort, 1)
    with pytest.raises(EvaluationIncompleteError):
        make_evaluator(cohort, tmp_path / "run", transform=broken, subsets=["t1", "t2"]).run()
    text = write_report([read_run(tmp_path / "run")], tmp_path / "page.html").page.read_text(encoding="utf-8")
    assert "the &lt;scanner&gt; was off" in text
    assert "n = 0 cases" in text
