from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medmap_monai.data.cohort import scan_cohort
from medmap_monai.data.training_cases import TrainingCases
from medmap_monai.engines.unlike_training import (
    training_orientation,
    training_spacing,
    training_window,
    unlike_training,
)
from medmap_monai.modalities import BRATS
from medmap_monai.transforms.pipelines import train_transforms

RAS, LPS = np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("affine", "roi_size", "seen", "notes"),
    [
        (LPS, (16, 16, 16), TrainingCases({}, {}, window=(16, 16, 16), orientation="LPS"), []),
        (LPS, 16, TrainingCases({}, {}), []),
        (LPS, -1, None, []),
        (LPS, (16, 24, -1), None, ["smaller than the window (20 of 24 voxels)"]),
        (
            LPS,
            (8, 8, 8),
            TrainingCases({}, {}, window=(16, 16, 16)),
            ["8 x 8 x 8 voxels is not that of the training"],
        ),
        (
            RAS,
            (16, 16, 16),
            TrainingCases({}, {}, orientation="LPS"),
            ["as RAS and was trained on LPS; --set"],
        ),
        (LPS, -1, TrainingCases({}, {}, spacing=(1.0, 1.0, 1.0)), []),
        (
            LPS,
            -1,
            TrainingCases({}, {}, spacing=(2.0, 2.0, 1.0)),
            ["voxels of 1 x 1 x 1 mm and was trained on 2 x 2 x 1 mm; --set 'spacing=[2, 2, 1]'"],
        ),
        (LPS, (16, 16), TrainingCases({}, {}, window=(8, 8)), ["16 x 16 voxels is not that of the training (8 x 8)"]),
    ],
)
def test_notes(
    affine: np.ndarray, roi_size: int | tuple[int, ...], seen: TrainingCases | None, notes: list[str]
) -> None:
    image = MetaTensor(torch.zeros(2, 18, 20, 22), affine=torch.from_numpy(affine))
    found = unlike_training(image, roi_size, seen)
    assert len(found) == len(notes)
    assert all(part in note for part, note in zip(notes, found, strict=True))


def test_what_a_pipeline_trains_on(phantom_cohort: Path) -> None:
    records = [{"case_id": study.case_id, "study": study} for study in scan_cohort(phantom_cohort, None).studies[:2]]
    own = train_transforms(tuple(BRATS), roi_size=(16, 16, 12))
    assert (training_window(own), training_orientation(own, records)) == ((16, 16, 12), "LPS")
    slices = train_transforms(tuple(BRATS), roi_size=(16, 16), spatial_dims=2, orientation="RAS")
    assert (training_window(slices), training_orientation(slices, records)) == ((16, 16), "RAS")
    assert (training_spacing(own), training_spacing(None)) == ((), ())
    assert training_spacing(train_transforms(tuple(BRATS), spacing=(2, 2, 3))) == (2.0, 2.0, 3.0)
    assert (training_window(None), training_orientation(None, [])) == ((), "")
