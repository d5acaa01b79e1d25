"""Key maps: one to one with the published state dicts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest
import torch

from medmap_monai.checkpoints.key_maps import published_keys
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer
from medmap_monai.networks.rfnet import RFNet
from medmap_monai.networks.unet import ModalityUNet
from tests.networks.golden import SHARED, published_shapes

# sha256 of the published {key: shape}, as JSON with sorted keys
PUBLISHED: dict[str, tuple[Callable[..., ModalityNetwork], int, str]] = {
    "rfnet": (RFNet, 288, "b0dcf970a842d164d20f4b1b78560e285687653170147e9b8e79cccc35b200c2"),
    "mmformer": (MMFormer, 279, "709938cb174e36e862faccbbb0604207da59aafb2a49655966b2de0264c12a12"),
    "m2ftrans": (M2FTrans, 801, "f736adc0d27aec06f2442a7798b862b6eff7c2e3b3fe56ffd395ca122dc94cf6"),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_keys_and_shapes_are_the_published_ones(name: str) -> None:
    network, count, digest = PUBLISHED[name]
    with torch.device("meta"):
        built = network()
    keys = published_keys(built)
    assert len(keys) == len(set(keys.values())) == count
    shapes = {keys[key]: list(value.shape) for key, value in built.state_dict().items()}
    for key, shape in shapes.items():  # linear layers here, 1x1x1 convolutions there
        if ".weight_layer." in key and key.endswith(".weight"):
            shapes[key] = [*shape, 1, 1, 1]
    if (SHARED / f"{name}_passion_keys.json").is_file():
        assert shapes == published_shapes(name)
    assert hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest() == digest


def test_original_mmformer_has_its_unused_convolutions_too() -> None:
    with torch.device("meta"):
        keys = published_keys(MMFormer(variant="original"))
    assert len(keys) == len(set(keys.values())) == 279 + 8
    assert keys["unused.1.conv.weight"] == "t1ce_decode_conv.weight"


def test_other_networks_and_numbers_of_modalities_are_refused() -> None:
    with pytest.raises(TypeError, match="ModalityUNet"):
        published_keys(ModalityUNet(3, 4, 4))
    with pytest.raises(ValueError, match="this network has 3"):
        published_keys(RFNet(in_channels=3))
