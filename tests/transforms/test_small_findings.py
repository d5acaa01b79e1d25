"""Small findings go, and somebody is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medmap_monai.metrics.scoring import Scoring
from medmap_monai.transforms.small_findings import REMOVED, RemoveSmallFindingsd, remove_small_findings
from medmap_monai.utils.voxel_volume import voxel_ml


def two_findings() -> torch.Tensor:
    labels = torch.zeros(1, 12, 12, 12, dtype=torch.uint8)
    labels[0, 1:5, 1:5, 1:5] = 2  # 64 voxels, with 8 of another class
    labels[0, 2:4, 2:4, 2:4] = 1
    labels[0, 8, 8, 8] = labels[0, 9, 9, 9] = 3  # two voxels that meet at a corner
    return labels


@pytest.mark.parametrize(("smallest", "gone"), [(0.0, []), (0.1, []), (0.25, [0.2]), (6.4, [0.2]), (6.5, [6.4, 0.2])])
def test_what_hangs_together_counts_as_one(smallest: float, gone: list[float]) -> None:
    labels, before = two_findings(), two_findings()
    assert remove_small_findings(labels, 0.1, smallest) == pytest.approx(gone)
    kept = [(slice(None), slice(0, 6)), (slice(None), slice(6, 12))][: 2 - len(gone)]
    for place in kept:
        assert torch.equal(labels[place], before[place])
    assert int((labels > 0).sum()) == {0: 66, 1: 64, 2: 0}[len(gone)]


def test_volumes_are_those_of_the_voxels_and_the_sample_says_what_went() -> None:
    affine = np.diag([-2.0, 5.0, 10.0, 1.0])  # 0.1 ml
    assert voxel_ml(affine) == pytest.approx(0.1)
    item = RemoveSmallFindingsd(smallest=1.0)({"pred": MetaTensor(two_findings(), affine=torch.from_numpy(affine))})
    assert int((item["pred"] > 0).sum()) == 64
    assert item[REMOVED] == "1 finding below 1 ml removed, the largest of 0.2 ml; smallest_finding=0 keeps them"
    assert REMOVED not in RemoveSmallFindingsd()({"pred": MetaTensor(two_findings())})


@pytest.mark.parametrize("make", [lambda: RemoveSmallFindingsd(smallest=-1), lambda: Scoring(smallest_finding=-1)])
def test_a_negative_volume_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        make()  # type: ignore[operator]
