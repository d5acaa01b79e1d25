from __future__ import annotations

import sys

import pytest
import torch

from medmap_monai.metrics import lesion_wise
from medmap_monai.metrics.lesion_wise import lesion_scores
from medmap_monai.metrics.regions import make_regions

REGIONS = make_regions({"WT": (1,), "ET": (3,)})


def test_a_missing_library_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "panoptica", None)
    lesion_wise._evaluator.cache_clear()
    with pytest.raises(ImportError, match=r"medmap-monai\[lesions\]"):
        lesion_scores(torch.zeros(4, 4, 4), torch.zeros(4, 4, 4), REGIONS)
    lesion_wise._evaluator.cache_clear()


def test_found_missed_and_invented_lesions():
    pytest.importorskip("panoptica", reason="the extra 'lesions' is not installed")
    truth, found = torch.zeros(20, 20, 20), torch.zeros(20, 20, 20)
    truth[2:6, 2:6, 2:6] = 1
    truth[10:14, 10:14, 10:14] = 1
    found[2:6, 2:6, 3:6] = 1
    found[16:18, 16:18, 16:18] = 1
    scores = {(s.region, s.metric): (s.value, s.empty) for s in lesion_scores(found, truth, REGIONS)}
    assert scores["WT", "lesion_f1"] == (0.5, "none")  # one of each: found, missed, invented
    dice = 2 * 48 / (48 + 64)
    assert scores["WT", "lesion_panoptic_dice"][0] == pytest.approx(0.5 * dice)
    assert scores["ET", "lesion_f1"] == (1.0, "both")
    alone = {(s.region, s.metric): s.value for s in lesion_scores(found * 0, truth, REGIONS)}
    assert alone["WT", "lesion_f1"] == 0.0
