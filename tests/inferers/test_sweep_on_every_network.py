"""The all-subset sweep gives what subset-by-subset inference gives, on every network."""

from __future__ import annotations

import pytest
import torch

from medmap_monai.inferers.modality_sliding_window import ModalitySlidingWindowInferer
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.dmafnet import DMAFNet
from medmap_monai.networks.early_fusion_unet import EarlyFusionUNet
from medmap_monai.networks.unet import ModalityUNet
from tests.networks.backbones import m2ftrans, mmformer, rfnet

M, K = 3, 3


def networks() -> dict[str, ModalityNetwork]:
    """One small network of each kind, for three modalities and classes."""
    torch.manual_seed(0)
    common = {"spatial_dims": 3, "in_channels": M, "out_channels": K}
    unet = {"channels": (4, 8), "deep_supervision": 0}
    return {
        "unet": ModalityUNet(**common, **unet),
        "rfnet": rfnet(**common),
        "mmformer": mmformer(**common),
        "m2ftrans": m2ftrans(**common),
        "dmafnet": DMAFNet(**common, **unet, dmaf={"depth": 1, "heads": 2}),
        "early fusion": EarlyFusionUNet(**common, **unet),
        "aligned unet": AlignedNetwork(ModalityUNet(**common, **unet)),
        "aligned rfnet": AlignedNetwork(rfnet(**common), levels=[0, -1]),
    }


@pytest.mark.parametrize("name", list(networks()))
def test_sweep_equals_subset_by_subset(name: str) -> None:
    # float64: in small random transformers instance norm amplifies the rounding of float32 to 1e-3
    network = networks()[name].double().eval()
    image = torch.randn(1, M, 20, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    present = torch.ones(1, M, dtype=torch.bool)
    single = ModalitySlidingWindowInferer((16, 16, 16), sw_batch_size=2)
    with torch.no_grad():
        swept = SubsetSweepInferer((16, 16, 16), sw_batch_size=2, output="scores")(image, network, present)
        assert len(swept) == 2**M - 1
        for mask, scores in swept.items():
            alone = single(image, network, torch.tensor([mask]))
            torch.testing.assert_close(
                torch.as_tensor(scores).reshape(alone.shape), alone, rtol=1e-4, atol=1e-4, check_dtype=False
            )
