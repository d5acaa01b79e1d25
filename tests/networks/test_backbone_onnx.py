"""ONNX export of the backbones, through the converter that MONAI's ``onnx_export`` uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.utils import convert_to_onnx

from tests.networks.backbones import random_case, small

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TINY: dict[str, dict[str, Any]] = {
    "rfnet": {"levels": 2},
    "mmformer": {"levels": 2},
    "m2ftrans": {"levels": 3, "transformer_layers": 1},
}


@pytest.mark.parametrize("name", sorted(TINY))
def test_onnx_equals_eager_for_any_mask(name: str, tmp_path: Path) -> None:
    network = small(name, spatial_dims=2, in_channels=2, out_channels=2, **TINY[name]).float()
    image, mask = random_case(1, 2, (16, 8))
    path = tmp_path / f"{name}.onnx"
    convert_to_onnx(network, (image.float(), torch.ones_like(mask)), filename=str(path), opset_version=18)
    session = onnxruntime.InferenceSession(path)
    names = [i.name for i in session.get_inputs()]
    for mask in torch.tensor([[[True, True]], [[False, True]], [[True, False]]]):
        values = session.run(None, dict(zip(names, (image.float().numpy(), mask.numpy()), strict=True)))[0]
        expected = network.double()(image, mask).detach().numpy()
        assert np.abs(values - expected).max() < 1e-3 * np.abs(expected).max()
