"""The page of a study in a real browser, with a picture that shows where left is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medmap_monai.clinical.study_figures import grey, lesion_centre, slice_name, to_lps
from medmap_monai.clinical.study_page import write_study_page
from medmap_monai.clinical.volume import Volume
from tests.report.test_page_in_browser import _resize, _screenshot, _severe, browser  # noqa: F401

CLASSES = ("background", "NCR", "ED", "ET")


def head() -> tuple[Volume, Volume]:
    """A head in RAS with a lesion on the patient's left, in front, high up."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (60, 72, 54)), indexing="ij")
    image = ((sum(a**2 for a in axes) < 0.9) * (200 + 60 * axes[1])).astype(np.float32)
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[12:24, 44:56, 30:42] = 2  # RAS: low first index is left
    labels[15:21, 47:53, 33:39] = 3
    labels[17:19, 49:51, 35:37] = 1
    labels[40:42, 20:22, 20:22] = 2  # a second piece, of 0.1 ml
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -60
    return Volume(image, affine), Volume(labels, affine)


def record() -> dict[str, object]:
    return {
        "classes": list(CLASSES),
        "modalities": {"used": ["flair", "t1ce"], "absent": ["t1", "t2"], "unusable": []},
        "volumes": {name: {"voxels": 1, "ml": ml} for name, ml in (("NCR", 0.1), ("ED", 12.1), ("ET", 1.7))},
        "expected": {
            "dice": {"WT": {"mean": 0.81, "interval": [0.78, 0.84], "n": 50, "reliable": True}},
            "source": "50 cases of a test",
            "warnings": ["ET is unreliable with flair+t1ce"],
        },
        "plausibility": ["<b>38% of what the images show is segmented</b>"],
        "notes": [],
        "model": "brats_test",
        "version": "0.1.0",
        "weights": {"sha256": "ab" * 32},
        "config_sha256": "cd" * 32,
        "protocol": "clinical",
        "synthetic": False,
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image, labels = head()
    path = tmp_path_factory.mktemp("page") / "report.html"
    pictures = {"flair": image, "t1ce": image}
    return write_study_page(path, "study <1>", record(), pictures, labels, originals=pictures, native_labels={
        "flair": labels, "t1ce": labels}, files=["native/a_seg.nii.gz"])  # fmt: skip


def test_left_is_on_the_right_and_front_is_up() -> None:
    _, labels = head()
    turned = to_lps(labels)
    x, y, z = lesion_centre(turned.data)
    assert x > turned.data.shape[0] / 2  # first axis points to the patient's left, drawn to the right
    assert y < turned.data.shape[1] / 2  # second axis points to posterior, drawn downwards
    assert z > turned.data.shape[2] / 2
    here = turned.affine @ [x, y, z, 1]
    there = labels.affine @ [*lesion_centre(labels.data), 1]
    np.testing.assert_allclose(here, there, atol=12)


def test_the_page_stands_alone_and_escapes_what_it_is_told(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "study &lt;1&gt;" in text
    assert "<b>38%" not in text
    assert text.index("RESEARCH USE ONLY") < text.index("<h1>")
    for words in (
        "WT 0.81",
        "n&nbsp;=&nbsp;50",
        "12.1 ml",
        "ab" * 32,
        "Peritumoural oedema",
        "absent",
        "in 2 separate pieces, the largest 13.8 ml",
    ):
        assert words in text, words


def test_a_slice_is_counted_as_its_stack_lies() -> None:
    assert [slice_name(axis, 0, 26) for axis in range(3)] == [
        f"slice 1 of 26 from {side}" for side in ("the right", "the front", "below")
    ]


def test_a_bright_scalp_does_not_darken_the_brain_and_a_bright_lesion_is_not_cut_off() -> None:
    image = np.full((40, 40, 40), 100.0, dtype=np.float32)
    image += np.random.default_rng(0).normal(0, 5, image.shape).astype(np.float32)
    image[:4], image[0, 0, 0] = 1000, 0
    lesion = np.zeros(image.shape, dtype=bool)
    assert np.median(grey(image, lesion)[10:30]) > 0.3  # 0.1 with the scalp's white as white
    lesion[6:9, 10:20, 10:20] = True
    image[lesion] += np.linspace(100, 200, int(lesion.sum()), dtype=np.float32)
    shown = grey(image, lesion)[lesion]
    assert (shown < 1).mean() > 0.9


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_its_window_and_its_pictures_are_drawn(browser, page: Path, width: int) -> None:  # noqa: F811
    _resize(browser, width)
    browser.get(page.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    drawn = browser.execute_script("return [...document.images].map((i) => i.complete && i.naturalWidth)")
    assert len(drawn) == 2
    assert all(size > 300 for size in drawn)
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in loaded if not name.startswith(("data:", "blob:"))] == []
    assert browser.execute_script("return document.getElementById('research').getBoundingClientRect().top") == 0
    _screenshot(browser, f"study-{width}")
    assert _severe(browser) == []
