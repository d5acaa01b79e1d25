"""Small RFNet, mmFormer and M2FTrans for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer
from medmap_monai.networks.rfnet import RFNet


def rfnet(**kwargs: Any) -> RFNet:
    return RFNet(**{"base_width": 2, "levels": 3, "mlp_width": 8, **kwargs})


def mmformer(**kwargs: Any) -> MMFormer:
    small = {"base_width": 2, "levels": 3, "token_width": 8, "heads": 2, "mlp_width": 16, "position_size": 4}
    return MMFormer(**{**small, **kwargs})


def m2ftrans(**kwargs: Any) -> M2FTrans:
    small = {"base_width": 2, "levels": 3, "heads": 2, "mlp_width": 16, "position_size": 4, "transformer_layers": 2}
    return M2FTrans(**{**small, **kwargs})


SMALL: dict[str, Callable[..., ModalityNetwork]] = {"rfnet": rfnet, "mmformer": mmformer, "m2ftrans": m2ftrans}


def small(name: str, **kwargs: Any) -> ModalityNetwork:
    """A small float64 network in eval mode with random weights; positional embeddings are random too, not zero."""
    torch.manual_seed(0)
    network = SMALL[name](**kwargs).double().eval()
    with torch.no_grad():
        for key, value in network.named_parameters():
            if "positions" in key:
                value.normal_()
    return network


def random_case(batch: int, modalities: int, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Float64 image and mask; every row has at least one modality, and no two neighbouring rows the same ones."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn((batch, modalities, *size), generator=generator, dtype=torch.float64)
    mask = torch.rand((batch, modalities), generator=generator) > 0.5
    mask[torch.arange(batch), torch.arange(batch) % modalities] = True
    return image, mask
