"""Methods and batches of the GPU tests; ``test_methods_on_cpu.py`` sees to it that they fit each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medmap_monai.losses.segmentation import WeightedCEDiceLoss
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.methods.dmaf import DMAF
from medmap_monai.methods.medmap import MedMAP
from medmap_monai.methods.passion import Passion
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer
from medmap_monai.networks.rfnet import RFNet
from medmap_monai.networks.unet import ModalityUNet

METHODS: dict[str, Callable[[], Method]] = {
    "passion rfnet": lambda: Passion(RFNet(), "pdt"),
    "passion mmformer": lambda: Passion(MMFormer(), "pdt"),
    "passion m2ftrans": lambda: Passion(M2FTrans(), "pdt"),
    "passion unet": lambda: Passion(ModalityUNet(3, 4, 4), "pdt", unimodal="student"),
    "dropout rfnet": lambda: ModalityDropoutBaseline(RFNet(), WeightedCEDiceLoss()),
    "medmap rfnet": lambda: MedMAP(ModalityDropoutBaseline(AlignedNetwork(RFNet()), WeightedCEDiceLoss())),
    "dmaf rfnet": lambda: DMAF(RFNet()),
}


def small_method() -> Method:
    """PASSION on two levels, for processes that share one GPU."""
    return Passion(ModalityUNet(3, 4, 4, channels=(8, 16), deep_supervision=0), "pdt", unimodal="student")


def batch_of(seed: int, masks: list[list[bool]], size: int = 32, device: str = "cuda") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    visible = torch.tensor(masks)
    batch = {
        "image": torch.randn((len(masks), 4, size, size, size), generator=generator),
        "modality_mask": visible,
        "present_mask": torch.ones_like(visible),
        "label": torch.randint(0, 4, (len(masks), 1, size, size, size), generator=generator),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def total(output: MethodOutput) -> Tensor:
    return torch.stack(list(output.losses.values())).sum()
