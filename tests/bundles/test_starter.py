"""The shipped weights: what they find on a real study, and on a synthetic one everywhere."""

from __future__ import annotations

import json
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


def dice(one: np.ndarray, two: np.ndarray) -> float:
    return 2 * float((one & two).sum()) / float(one.sum() + two.sum())


def segment(study: Path, out: Path, **settings: object) -> np.ndarray:
    run_inference(study, BUNDLE, out, edition="brats2020", device="cpu", trust=True, settings=settings)
    (path,) = out.glob("*_seg.nii.gz")
    return np.asarray(nib.load(path).dataobj)


def test_the_weights_are_those_of_the_model_card() -> None:
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
    assert file_sha256(BUNDLE / metadata["weights"]["file"]) == metadata["weights"]["sha256"]


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
    assert dice(found > 0, reference > 0) == pytest.approx(0.94, abs=0.02)
    assert dice(np.isin(found, (1, 4)), np.isin(reference, (1, 4))) == pytest.approx(0.78, abs=0.03)
    assert not (found[~shown] > 0).any()
    for kept, expected in ((("flair", "t2"), 0.94), (("t1",), 0.75), (("t1ce",), 0.61)):
        folder = tmp_path / "+".join(kept)
        folder.mkdir()
        for modality in kept:
            shutil.copy(REAL / f"TCGA-DU-7294_{modality}.nii.gz", folder)
        found = segment(folder, tmp_path / f"out of {folder.name}")
        assert dice(found > 0, reference > 0) == pytest.approx(expected, abs=0.03)


def test_a_synthetic_study(tmp_path: Path) -> None:
    """A large tumour in a toy brain: the way from files to labels, with the shipped weights, is pinned everywhere."""
    anatomy = ensure_phantom_anatomy(tmp_path / "anatomy")
    cohort = write_synthetic_cohort(tmp_path / "cohort", anatomy, cases=1, spacing=2.0, seed=SEED)
    (study,) = find_studies(cohort)
    label = np.asarray(nib.load(study.label).dataobj)
    found = segment(cohort, tmp_path / "out")
    assert found.shape == label.shape
    assert dice(found > 0, label > 0) == pytest.approx(DICE, abs=0.03)
    plain = segment(cohort, tmp_path / "out", decision=None)  # done again: it is another configuration
    assert 0 < int((plain > 0).sum()) < int((found > 0).sum())
    assert not ((plain > 0) & (found == 0)).any()
