from __future__ import annotations

import pytest
from monai.transforms import Compose

from medmap_monai.engines.how_segmented import how_segmented, unlike_measured
from medmap_monai.inferers.expected_dice import ExpectedDiceDecision
from medmap_monai.inferers.modality_sliding_window import ModalitySlidingWindowInferer
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.metrics.reliability import read_reliability, write_reliability
from medmap_monai.transforms.pipelines import inference_transforms
from medmap_monai.transforms.small_findings import RemoveSmallFindingsd

NAMES = ("flair", "t2")
DECISION = ExpectedDiceDecision([[1]], temperature=2.0)


def predicting(protocol="clinical", smallest=4.0, decision=DECISION, orientation="RAS", roi=16):
    parts = {
        "inferer": ModalitySlidingWindowInferer((roi,) * 3, decision=decision),
        "preprocessing": inference_transforms(NAMES, protocol=protocol, orientation=orientation),
        "postprocessing": Compose([RemoveSmallFindingsd("pred", smallest)]),
    }
    return how_segmented(protocol, parts)


@pytest.fixture
def reliability(tmp_path):
    from medmap_monai.engines.how_segmented import describe_inferer

    summary = {
        "scores": [{"subset": "t2", "region": "WT", "metric": "dice", "mean": 0.5, "ci": None, "n": 1}],
        "modalities": list(NAMES),
        "protocol": "clinical",
        "inference": describe_inferer(SubsetSweepInferer((16, 16, 16), decision=DECISION)),
        "smallest_finding": 4.0,
        "orientation": "RAS",
    }
    write_reliability(summary, tmp_path / "reliability.json")
    return read_reliability(tmp_path / "reliability.json")


def test_a_prediction_as_it_was_evaluated_has_the_quality_that_was_measured(reliability):
    assert unlike_measured(reliability, predicting()) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"protocol": "legacy"}, ["protocol clinical, here legacy"]),
        ({"smallest": 0.0}, ["smallest_finding 4.0, here 0.0"]),
        ({"decision": None}, ["decision one, here none"]),
        ({"decision": ExpectedDiceDecision([[1]], temperature=1.5)}, ["another decision"]),
        ({"orientation": None}, ["orientation RAS, here none"]),
        ({"roi": 24}, ["roi_size [16, 16, 16], here [24, 24, 24]"]),
    ],
)
def test_a_prediction_made_otherwise_is_told(reliability, change, told):
    assert unlike_measured(reliability, predicting(**change)) == told


def test_of_an_earlier_file_the_protocol_alone_is_known(reliability):
    del reliability["settings"]
    assert unlike_measured(reliability, predicting(smallest=0.0)) == []
    assert unlike_measured(reliability, predicting("legacy")) == ["protocol clinical, here legacy"]
