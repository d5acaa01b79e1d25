from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medmap_monai.inferers.unwrap import find_network, unwrap_network
from medmap_monai.inferers.windows import slices_as_batch, slices_to_volume, window_grid, window_size
from medmap_monai.networks.unet import ModalityUNet


@pytest.mark.golden
def test_window_starts_are_the_published_ones():
    with np.load(Path(__file__).parents[1] / "golden" / "preprocessing.npz") as golden:
        cases = {int(key.split("/")[1]): golden[key].tolist() for key in golden if key.startswith("window_starts/")}
    for size, starts in cases.items():
        assert [int(place[0].start) for place in window_grid((size,), (80,), 0.5)] == starts


@pytest.mark.parametrize(
    ("roi", "size", "stride", "expected"),
    [
        ((8, 8, 8), (20, 20, 20), 8, (8, 8, 8)),
        ((9, 10, 16), (20, 20, 20), 8, (16, 16, 16)),
        (-1, (20, 16, 7), 8, (24, 16, 8)),
        ((0, 5), (7, 9), 1, (7, 5)),
    ],
)
def test_window_size(roi, size, stride, expected):
    assert window_size(roi, size, stride) == expected


@pytest.mark.parametrize("overlap", [1.0, -0.1])
def test_ill_overlap(overlap):
    with pytest.raises(ValueError, match="overlap"):
        window_grid((8,), (4,), overlap)


def test_slices_and_back():
    volume = torch.rand(2, 3, 4, 5, 6)
    slices = slices_as_batch(volume)
    assert slices.shape == (12, 3, 4, 5)
    assert torch.equal(slices[7], volume[1, :, :, :, 1])
    assert torch.equal(slices_to_volume(slices, 2), volume)


class _Holder(nn.Module):
    def __init__(self, name, child):
        super().__init__()
        setattr(self, name, child)


def test_networks_are_found_below_wrappers():
    net = ModalityUNet(2, in_channels=2, out_channels=2, channels=(2, 4), deep_supervision=0)
    for holder in (net, _Holder("module", net), _Holder("module", _Holder("network", net))):
        assert find_network(holder) is net
        assert unwrap_network(holder) is net
    compiled = _Holder("_orig_mod", net)  # the form of torch.compile's result
    assert find_network(compiled) is net
    assert unwrap_network(compiled) is compiled
    assert unwrap_network(_Holder("network", compiled)) is compiled


def test_what_holds_no_network_is_called_as_it_is():
    for other in (nn.Conv2d(1, 1, 1), len, _Holder("module", nn.Identity())):
        assert find_network(other) is None
        assert unwrap_network(other) is other
