"""Both U-Nets trace and export to ONNX for any mask (TorchScript: test_unet, test_early_fusion_unet)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.early_fusion_unet import EarlyFusionUNet
from medmap_monai.networks.unet import ModalityUNet

NETWORKS = {"early_fusion_unet": EarlyFusionUNet, "unet": ModalityUNet}
MASKS = torch.tensor([[[True, True], [True, False]], [[False, True], [True, True]]])


def small(name: str) -> ModalityNetwork:
    torch.manual_seed(0)
    return NETWORKS[name](2, in_channels=2, out_channels=2, channels=(4, 8), deep_supervision=0).eval()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", sorted(NETWORKS))
@torch.no_grad()
def test_trace_equals_eager_for_other_masks(name: str) -> None:
    network, image = small(name), torch.randn(2, 2, 16, 8)
    traced = torch.jit.trace(network, (image, torch.ones(2, 2, dtype=torch.bool)))
    for mask in MASKS:
        torch.testing.assert_close(traced(image, mask), network(image, mask), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", sorted(NETWORKS))
@torch.no_grad()
def test_onnx_equals_eager_for_other_masks(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network, image = small(name), torch.randn(2, 2, 16, 8)
    path = tmp_path / f"{name}.onnx"
    torch.onnx.export(network, (image, torch.ones(2, 2, dtype=torch.bool)), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    for mask in MASKS:
        values = session.run(None, dict(zip(names, (image.numpy(), mask.numpy()), strict=True)))[0]
        torch.testing.assert_close(torch.from_numpy(values), network(image, mask), rtol=0, atol=1e-4)
