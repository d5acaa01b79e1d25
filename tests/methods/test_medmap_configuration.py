"""The configuration blocks of ``docs/explanation/medmap.md`` build what the page says, for every anchor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from medmap_monai.methods.medmap import MedMAP
from medmap_monai.networks.aligned import AlignedNetwork

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "medmap.md"
SLS, DA, KD = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S))
COMMON: dict[str, Any] = {
    "modalities": ["flair", "t1ce", "t1", "t2"],
    "num_classes": 4,
    "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
    "ckpt_dir": "models",
    "epochs": 2,
}
FAMILIES = {"sls": SLS, "da": {**SLS, **DA}, "kd": {**SLS, **DA, **KD}}
LOSSES = {
    "sls": {"fused", "deep", "modality", "align"},
    "da": {"full", "missing", "deep", "consistency", "bottleneck", "align"},
    "kd": {"fused", "deep", "distill", "bottleneck", "align"},
}


def small(config: dict[str, Any]) -> dict[str, Any]:
    """The same blocks with small networks."""
    out = json.loads(json.dumps({**COMMON, **config}))
    for name in ("backbone", "teacher_backbone"):
        if name in out:
            width = (
                {"base_width": 2}
                if "RFNet" in out[name]["_target_"]
                else {"channels": [4, 4, 8], "deep_supervision": 1}
            )
            out[name].update(width)
    return out


@pytest.mark.parametrize("anchor", ["adaptive", "fixed", "normal", "none"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_is_a_working_configuration(family: str, anchor: str) -> None:
    parser = ConfigParser({**small(FAMILIES[family]), "anchor": anchor})
    method = parser.get_parsed_content("method")
    assert isinstance(method, MedMAP)
    assert isinstance(method.network, AlignedNetwork)
    assert method.network.anchor == anchor
    image, label = torch.randn(2, 4, 16, 16, 16), torch.randint(0, 4, (2, 1, 16, 16, 16))
    visible = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0]]).bool()
    losses = method.train()(image, visible, torch.ones_like(visible), label).losses
    assert set(losses) == LOSSES[family]
    assert all(bool(value.isfinite()) for value in losses.values())


def test_a_dedicated_student_is_one_value() -> None:
    parser = ConfigParser({**small(FAMILIES["kd"]), "student_subset": ["t2", "flair"]})
    subset = parser.get_parsed_content("base_method").subset
    assert subset.tolist() == [True, False, False, True]
