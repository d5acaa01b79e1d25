"""The configuration blocks of ``docs/explanation/passion.md`` build what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from medmap_monai.data.study import ImageSource, Study
from medmap_monai.methods.passion import Passion
from tests.methods.passion_cases import batch, total

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "passion.md"
BLOCKS = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)]


def build(block: dict[str, Any]) -> Passion:
    names = ["flair", "t1ce", "t2"]
    studies = [Study(str(i), {name: ImageSource(Path(f"{name}.nii.gz")) for name in names[i % 3 :]}) for i in range(6)]
    config = {
        "modalities": names,
        "mode": "idt",
        "train": {"dataset": {"data": [{"case_id": s.case_id, "study": s, "available": None} for s in studies]}},
        "network_def": {
            "_target_": "medmap_monai.networks.unet.ModalityUNet",
            "spatial_dims": 2,
            "in_channels": 3,
            "out_channels": 3,
            "channels": [4, 8],
            "deep_supervision": 0,
        },
        **BLOCKS[0],
        **block,
    }
    torch.manual_seed(0)
    method = ConfigParser(config).get_parsed_content("method")
    assert isinstance(method, Passion)
    return method.train()


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_build_and_train(block: dict[str, Any]) -> None:
    method = build(block)
    assert method.omega.tolist() == [3.0, 1.5, 1.0]
    loss = total(method(*batch()).losses)
    loss.backward()
    assert loss.isfinite()


def test_the_written_out_switches_are_the_defaults() -> None:
    assert len(BLOCKS) == 2
    short, long = (total(build(block)(*batch()).losses) for block in BLOCKS)
    assert torch.equal(short, long)
