"""The real study from its scanner, against what another preprocessing made of it."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from medmap_monai.clinical.choose import choose_images
from medmap_monai.clinical.find_studies import nifti_image
from medmap_monai.clinical.source import SourceStudy
from tests.clinical.conftest import RealRun
from tests.clinical.real_study import (
    MODALITIES,
    dice,
    native_files,
    placed_in,
    reference_images,
    residual_shifts,
)
from tests.clinical.scanner import load


def test_every_subset_is_recognised_by_its_names() -> None:
    files = native_files()
    for size in range(1, len(MODALITIES) + 1):
        for subset in combinations(MODALITIES, size):
            images = tuple(nifti_image(files[name]) for name in subset)
            choice = choose_images(SourceStudy("real", images))
            assert {name: image.files[0] for name, image in choice.images.items()} == {n: files[n] for n in subset}
            assert not choice.unclear


def test_sequences_and_brain_lie_where_the_other_preprocessing_has_them(prepared_real: RealRun) -> None:
    record = prepared_real.study.record
    assert set(record["sequences"]) == set(MODALITIES)
    assert not record["warnings"]
    prepared = {
        name: load(prepared_real.study.folder / entry["output"]["file"]) for name, entry in record["sequences"].items()
    }
    reference = reference_images()
    places = placed_in(prepared, reference)
    brain = reference["t1"].data != 0
    points = np.c_[np.argwhere(brain)[::997], np.ones(len(np.argwhere(brain)[::997]))] @ reference["t1"].affine.T
    shifts = residual_shifts(places, points[:, :3])
    assert max(shifts.values()) <= 2, shifts
    mask = prepared["t1"].data != 0
    there = prepared["t1"]
    own = type(there)(mask.astype(np.float32), there.affine)
    moved = own.on_grid(brain.shape, reference["t1"].affine, places["t1"], "nearest") > 0
    assert dice(moved, brain) >= 0.93
    for name, found in record["sequences"].items():
        if found["registration"]:  # the headers are wrong by 3 to 18 mm and up to 14 degrees
            assert found["registration"]["shift_mm"] > 2, name
            assert found["registration"]["sharpness"] > 0.15, name


def test_progress_names_every_step_and_time_and_memory_are_bounded(prepared_real: RealRun) -> None:
    for what in ("read flair", "register t2 to t1ce", "resample", "find the brain on t1 (deepbet)", "write"):
        assert what in prepared_real.steps
    assert prepared_real.seconds < 300
    assert prepared_real.gigabytes < 6
