"""Weights of the network alone reach it through the method around it, as MONAI's CheckpointLoader hands them over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader
from monai.losses import DiceCELoss

from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.networks.unet import ModalityUNet


def make(seed: int) -> ModalityDropoutBaseline:
    torch.manual_seed(seed)
    network = ModalityUNet(3, in_channels=2, out_channels=3, channels=(4, 8), deep_supervision=0)
    return ModalityDropoutBaseline(network, DiceCELoss(to_onehot_y=True, softmax=True))


def load(method: torch.nn.Module, path: Path) -> None:
    engine = Engine(lambda _engine, batch: batch)
    CheckpointLoader(str(path), {"model": method}, strict=False, map_location="cpu").attach(engine)
    engine.fire_event(Events.STARTED)


def test_every_tensor_of_the_network_is_loaded(tmp_path: Path) -> None:
    given, method = make(1), make(2)
    torch.save(given.network.state_dict(), tmp_path / "model.pt")
    load(method, tmp_path / "model.pt")
    expected = given.network.state_dict()
    for name, tensor in method.network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_a_methods_own_state_is_loaded_as_ever(tmp_path: Path) -> None:
    given, method = make(1), make(2)
    torch.save(given.state_dict(), tmp_path / "method.pt")
    load(method, tmp_path / "method.pt")
    for name, tensor in method.state_dict().items():
        torch.testing.assert_close(tensor, given.state_dict()[name], rtol=0, atol=0)


def test_weights_of_which_nothing_fits_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="none of 1 tensors belongs to ModalityDropoutBaseline"):
        make(0).load_state_dict({"something": torch.zeros(1)}, strict=False)
