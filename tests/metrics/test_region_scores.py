from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance

from medmap_monai.metrics.edge_cases import EdgeCases, Empty, grid_diagonal
from medmap_monai.metrics.hausdorff import hausdorff95
from medmap_monai.metrics.region_scores import foreground_box, region_scores
from medmap_monai.metrics.regions import make_regions

BRATS_REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "region_metrics.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN.files})


def _table(scores, metric):
    return {s.region: s.value for s in scores if s.metric == metric}


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES)
def test_published_convention(case):
    prediction = torch.from_numpy(GOLDEN[f"{case}/pred"])
    reference = torch.from_numpy(GOLDEN[f"{case}/target"])
    regions = make_regions(BRATS_REGIONS, {"ET": 500})
    scores = region_scores(prediction, reference, regions, (1, 1, 1), EdgeCases(hd95_empty="1.0"))
    assert [s.region for s in scores if s.metric == "dice"] == ["WT", "TC", "ET", "ETpp"]
    dice, distance = _table(scores, "dice"), _table(scores, "hd95")
    np.testing.assert_allclose(list(dice.values()), GOLDEN[f"{case}/dice_wt_tc_et_etpro"], atol=1e-6)
    np.testing.assert_allclose(list(distance.values()), GOLDEN[f"{case}/hd95_wt_tc_et_etpro"], rtol=1e-6)
    single = make_regions({"NCR": (1,), "ED": (2,), "ET": (3,)})
    parts = _table(region_scores(prediction, reference, single, (1, 1, 1)), "dice")
    np.testing.assert_allclose(list(parts.values()), GOLDEN[f"{case}/dice_ncr_ed_et"], atol=1e-6)


def _blocks(shape=(20, 18, 16)):
    prediction, reference = torch.zeros(shape, dtype=torch.uint8), torch.zeros(shape, dtype=torch.uint8)
    prediction[3:9, 4:10, 5:9] = 1
    reference[5:12, 4:10, 6:9] = 1
    return prediction, reference


def test_the_spacing_of_the_voxels_counts():
    prediction, reference = _blocks()
    region = make_regions({"WT": (1,)})
    one = _table(region_scores(prediction, reference, region, (1, 1, 1)), "hd95")["WT"]
    two = _table(region_scores(prediction, reference, region, (2, 2, 2)), "hd95")["WT"]
    assert two == pytest.approx(2 * one)
    # anisotropic spacing equals isotropic spacing on a grid that repeats each slice
    coarse = hausdorff95(prediction[:, :8, 5:6].bool(), reference[:, :8, 6:7].bool(), (3, 1, 1))
    assert coarse == pytest.approx(9.0)  # 3 slices of 3 mm: the far ends of the two blocks


def test_pooled_percentile_is_not_the_larger_directed_one():
    # why HD95 is not left to monai.metrics: its definition differs from the published one
    shape = (1, 1, 24, 24)
    prediction, reference = torch.zeros(shape), torch.zeros(shape)
    prediction[..., 2:20, 2:20] = 1
    reference[..., 2:20, 2:20] = 1
    reference[..., 22, 22:24] = 1
    monai = float(compute_hausdorff_distance(prediction, reference, include_background=True, percentile=98))
    ours = hausdorff95(prediction[0, 0].bool(), reference[0, 0].bool(), (1, 1), percentile=98)
    assert ours < monai


def test_cutting_to_the_foreground_changes_nothing():
    prediction, reference = _blocks()
    box = foreground_box(prediction, reference)
    assert box == (slice(3, 12), slice(4, 10), slice(5, 9))
    assert hausdorff95(prediction.bool(), reference.bool(), (1, 2, 3)) == hausdorff95(
        prediction[box].bool(), reference[box].bool(), (1, 2, 3)
    )
    assert foreground_box(torch.zeros(3, 4)) == (slice(0, 1), slice(0, 1))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("diagonal", grid_diagonal((240, 240, 155), (1, 1, 1))), ("1.0", 1.0), ("nan", float("nan"))],
)
def test_policy_for_one_empty_mask(policy, expected):
    prediction, reference = _blocks()
    region = make_regions({"WT": (1,)})
    for found, truth, empty in (
        (torch.zeros_like(prediction), reference, "prediction"),
        (prediction, torch.zeros_like(reference), "reference"),
    ):
        scores = region_scores(
            found,
            truth,
            region,
            (1, 1, 1),
            EdgeCases(hd95_empty=policy),
            grid_diagonal((240, 240, 155), (1, 1, 1)),
        )
        assert {s.empty for s in scores} == {empty}
        assert _table(scores, "dice") == {"WT": 0.0}
        np.testing.assert_equal(_table(scores, "hd95")["WT"], expected)


def test_diagonal_of_a_brats_volume():
    assert grid_diagonal((240, 240, 155), (1, 1, 1)) == pytest.approx(373.13, abs=0.005)


def test_both_empty_and_two_dimensions():
    zeros = torch.zeros(8, 9, dtype=torch.uint8)
    scores = region_scores(zeros, zeros, make_regions({"WT": (1,)}), (1, 1))
    assert [(s.metric, s.value, s.unit, s.empty) for s in scores] == [
        ("dice", 1.0, "1", "both"),
        ("hd95", 0.0, "mm", "both"),
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EdgeCases(hd95_empty="worst"), "diagonal"),
        (lambda: EdgeCases().dice(Empty.NONE), "computed"),
        (lambda: EdgeCases().hd95(Empty.NONE, 1.0), "computed"),
        (lambda: make_regions({"WT": (0, 1)}), "WT"),
        (lambda: make_regions({"WT": ()}), "WT"),
        (lambda: make_regions({"WT": (1,)}, {"ET": 500}), "ET"),
        (lambda: make_regions({"WT": (1,)}, {"WT": -1}), "negative"),
        (lambda: grid_diagonal((1, 2), (1,)), "axes"),
        (lambda: region_scores(torch.zeros(3, 3), torch.zeros(3, 4), [], (1, 1)), "shape"),
        (lambda: hausdorff95(torch.zeros(3, 3).bool(), torch.ones(3, 3).bool(), (1, 1)), "empty"),
        (lambda: hausdorff95(torch.ones(3, 3).bool(), torch.ones(3, 3).bool(), (1,)), "spacing"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
