"""The shipped weights: what they find on a real study, and on a synthetic one everywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmap_monai.data.studies import find_studies
from medmap_monai.engines.run_bundle import run_inference
from medmap_monai.synthesis.cohort import write_synthetic_cohort
from medmap_monai.synthesis.phantom_anatomy import ensure_phantom_anatomy
from medmap_monai.utils.files import file_sha256

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "brats_starter"
REAL = BUNDLE.parents[2] / "shared" / "real" / "TCGA-DU-7294"
MODALITIES = ("flair", "t1ce", "t1", "t2")
SEED, DICE = 2, 0.93
WEIGHTS = "df41e57a805f03fb8b88478cda1126e23353b3c83c15794e80c46c9d31897ea3"


def dice(one: np.ndarray, two: np.ndarray) -> float:
    return 2 * float((one & two).sum()) / float(one.sum() + two.sum())


def segment(study: Path, out: Path) -> np.ndarray:
    run_inference(study, BUNDLE, out, edition="brats2020", device="cpu", trust=True)
    (path,) = out.glob("*_seg.nii.gz")
    return np.asarray(nib.load(path).dataobj)


def test_the_weights_are_those_of_the_model_card() -> None:
    assert file_sha256(BUNDLE / "models" / "model.pt") == WEIGHTS


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real study of ../shared/real")
def test_a_real_study(tmp_path: Path) -> None:
    """Numbers of the model card; the tolerance is for other processors. Nothing is found where nothing is shown."""
    reference = np.asarray(nib.load(REAL / "TCGA-DU-7294_reference_fusion.nii.gz").dataobj)
    shown = np.zeros(reference.shape, dtype=bool)
    for modality in MODALITIES:
        path = REAL / f"TCGA-DU-7294_{modality}.nii.gz"
        (tmp_path / "all").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "all")
        shown |= np.asarray(nib.load(path).dataobj) != 0
    found = segment(tmp_path / "all", tmp_path / "out")
    assert dice(found > 0, reference > 0) == pytest.approx(0.86, abs=0.02)
    assert dice(np.isin(found, (1, 4)), np.isin(reference, (1, 4))) == pytest.approx(0.70, abs=0.03)
    assert not (found[~shown] > 0).any()
    (tmp_path / "two").mkdir()
    for modality in ("flair", "t2"):
        shutil.copy(REAL / f"TCGA-DU-7294_{modality}.nii.gz", tmp_path / "two")
    assert dice(segment(tmp_path / "two", tmp_path / "out2") > 0, reference > 0) == pytest.approx(0.93, abs=0.02)


def test_a_synthetic_study(tmp_path: Path) -> None:
    """A large tumour in a toy brain: the way from files to labels, with the shipped weights, is pinned everywhere."""
    anatomy = ensure_phantom_anatomy(tmp_path / "anatomy")
    cohort = write_synthetic_cohort(tmp_path / "cohort", anatomy, cases=1, spacing=2.0, seed=SEED)
    (study,) = find_studies(cohort)
    label = np.asarray(nib.load(study.label).dataobj)
    found = segment(cohort, tmp_path / "out")
    assert found.shape == label.shape
    assert dice(found > 0, label > 0) == pytest.approx(DICE, abs=0.03)
