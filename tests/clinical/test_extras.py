"""Every step that needs an optional package says which extra holds it, where the package is not there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medmap_monai.clinical.dicom_seg import write_dicom_seg
from medmap_monai.clinical.extras import ExtraNeededError
from medmap_monai.clinical.find_studies import find_studies
from medmap_monai.clinical.skull_strip import SKULL_STRIPPERS
from medmap_monai.clinical.source import SourceImage
from medmap_monai.clinical.study_page import write_study_page
from medmap_monai.clinical.volume import Volume
from tests.clinical.scanner import write_dicom_study

HEAD = Volume(np.pad(np.ones((20, 20, 4), np.float32), 2), np.diag([4.0, 4.0, 6.0, 1.0]))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> SourceImage:
    folder = tmp_path_factory.mktemp("extras") / "export"
    write_dicom_study(folder, {"t2": HEAD})
    ((image,),) = (study.images for study in find_studies(folder))
    return image


def _read(image: SourceImage, path: Path) -> None:
    find_studies(image.files[0].parent)


def _seg(image: SourceImage, path: Path) -> None:
    write_dicom_seg(HEAD, image, path / "seg.dcm", ("background", "ED"), "model", "1")


def _page(image: SourceImage, path: Path) -> None:
    write_study_page(path / "report.html", "study", {}, {}, HEAD)


def _strip(image: SourceImage, path: Path) -> None:
    SKULL_STRIPPERS["deepbet"].brain_mask(HEAD)


@pytest.mark.parametrize(
    ("package", "extra", "step"),
    [
        ("pydicom", "dicom", _read),
        ("highdicom", "dicom", _seg),
        ("jinja2", "report", _page),
        ("matplotlib", "report", _page),
        ("deepbet", "skullstrip", _strip),
    ],
)
def test_a_package_that_is_not_there_names_the_extra(
    package: str,
    extra: str,
    step: Callable[[SourceImage, Path], None],
    series: SourceImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # what an import of it then meets
    with pytest.raises(ExtraNeededError, match=rf"pip install 'medmap-monai\[{extra}\]'"):
        step(series, tmp_path)
    assert not list(tmp_path.iterdir())
