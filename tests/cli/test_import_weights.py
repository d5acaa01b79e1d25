"""medmap import-weights: from a published checkpoint to a bundle that works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from monai.bundle import ConfigParser
from typer.testing import CliRunner

from medmap_monai.cli.import_weights import import_weights
from tests.checkpoints.test_published import published_state
from tests.networks.backbones import random_case, small

RFNET = {"base_width": 2, "levels": 3, "mlp_width": 8}
app = typer.Typer()
app.command()(import_weights)


def bundle(folder: Path, **changes: Any) -> Path:
    config = {
        "modalities": ["flair", "t1ce", "t1", "t2"],
        "network_def": {
            "_target_": "medmap_monai.networks.rfnet.RFNet",
            "in_channels": "$len(@modalities)",
            **RFNET,
        },
        **changes,
    }
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    return folder


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"state_dict": published_state(small("rfnet").float())}, tmp_path / "model_last.pth")
    return tmp_path / "model_last.pth"


def test_bundle_gets_working_weights(checkpoint: Path, tmp_path: Path) -> None:
    root = bundle(tmp_path / "bundle")
    code, output = run(checkpoint, "--bundle", root)
    assert code == 0, output
    parser = ConfigParser()
    parser.read_config(root / "configs" / "inference.json")
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(root / "models" / "model.pt", weights_only=True))
    image, mask = random_case(1, 4, (8, 8, 8))
    assert torch.equal(network(image.float(), mask), small("rfnet").float()(image.float(), mask))
    assert run(checkpoint, "--bundle", root) == (
        1,
        f"error: {root / 'models' / 'model.pt'} exists already; pass --overwrite to replace it",
    )
    assert run(checkpoint, "--bundle", root, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": ["t1", "t1ce", "t2", "flair"]}, "published weights are for modalities"),
        ({"network_def": {"_target_": "medmap_monai.networks.rfnet.RFNet", "base_width": 4}}, "does not fit RFNet"),
        (
            {
                "network_def": {
                    "_target_": "medmap_monai.networks.unet.ModalityUNet",
                    "spatial_dims": 3,
                    "in_channels": 4,
                    "out_channels": 4,
                }
            },
            "no published weights are known for ModalityUNet",
        ),
        (
            {"network_def": {"_target_": "medmap_monai.networks.rfnet.RFNet", "base_width": 3}},
            "base_width must be even",
        ),
    ],
)
def test_what_does_not_fit_writes_nothing(
    changes: dict[str, Any], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    root = bundle(tmp_path / "bundle", **changes)
    code, output = run(checkpoint, "--bundle", root)
    assert code == 1
    assert message in output
    assert not list(root.rglob("*.pt"))


def test_missing_files(checkpoint: Path, tmp_path: Path) -> None:
    assert "is not a bundle" in run(checkpoint, "--bundle", tmp_path)[1]
    assert "there is no checkpoint" in run(tmp_path / "none.pth", "--bundle", bundle(tmp_path / "b"))[1]
