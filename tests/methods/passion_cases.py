"""Small networks and batches for the tests of PASSION."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medmap_monai.methods.passion import Passion
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.dmafnet import DMAFNet
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer
from medmap_monai.networks.rfnet import RFNet
from medmap_monai.networks.unet import ModalityUNet

CLASSES = 3


def unet() -> ModalityUNet:
    return ModalityUNet(2, 3, CLASSES, channels=(4, 4, 8), deep_supervision=1)


def rfnet() -> RFNet:
    return RFNet(2, 3, CLASSES, base_width=4, levels=3)


def dmafnet() -> DMAFNet:
    return DMAFNet(2, 3, CLASSES, channels=(4, 8), deep_supervision=0, dmaf={"depth": 1, "dropout": 0.0})


def mmformer() -> MMFormer:
    return MMFormer(2, 3, CLASSES, base_width=4, levels=3, token_width=16, heads=2, mlp_width=16, position_size=4)


def m2ftrans() -> M2FTrans:
    return M2FTrans(2, 3, CLASSES, base_width=4, levels=3, transformer_layers=1, heads=2, mlp_width=16, position_size=4)


NETWORKS: dict[str, Callable[[], ModalityNetwork]] = {
    "unet": unet,
    "rfnet": rfnet,
    "mmformer": mmformer,
    "m2ftrans": m2ftrans,
    "dmafnet": dmafnet,
    "aligned unet": lambda: AlignedNetwork(unet(), levels=[0, -1]),
    "aligned rfnet": lambda: AlignedNetwork(rfnet()),
    "aligned mmformer": lambda: AlignedNetwork(mmformer(), levels=[-1]),
}


def make(network: str | ModalityNetwork = "rfnet", **kwargs: Any) -> Passion:
    """The method in training mode with fixed weights; omega is (1.25, 2, 5) unless told otherwise."""
    torch.manual_seed(0)
    if isinstance(network, str):
        network = NETWORKS[network]()
    if kwargs.get("mode") != "pdt" and "cases" not in kwargs:
        kwargs.setdefault("modality_weight", [1.25, 2.0, 5.0])
    return Passion(network, **kwargs).train()


def batch(
    present: str = "111 101", visible: str | None = None, size: int = 16
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image, modality mask, present mask and label; one word of 0s and 1s per sample."""
    size = 16
    words, seen = present.split(), (visible or present).split()
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(len(words), 3, size, size, generator=generator)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    radius = ((y - size / 2) ** 2 + (x - size / 2) ** 2).sqrt()
    label = (radius < size / 3).long() + (radius < size / 6).long()
    labels = torch.stack([label.roll(2 * b, dims=0) for b in range(len(words))])[:, None]
    present_mask, modality_mask = (torch.tensor([[c == "1" for c in word] for word in w]) for w in (words, seen))
    return image * present_mask[:, :, None, None], modality_mask, present_mask, labels


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def gradients(method: Passion, *inputs: Tensor) -> dict[str, Tensor]:
    """Gradients of the sum of all losses, by parameter name; every parameter must have one."""
    method.zero_grad()
    total(method(*inputs).losses).backward()
    found = {}
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.clone()
    return found
