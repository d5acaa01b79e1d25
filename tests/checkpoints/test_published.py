"""Loading of published checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medmap_monai.checkpoints.key_maps import published_keys
from medmap_monai.checkpoints.published import load_published_weights
from medmap_monai.networks.base import ModalityNetwork
from tests.networks.backbones import SMALL, random_case, small

NAMES = sorted(SMALL)


def published_state(network: ModalityNetwork, prefix: str = "module.") -> dict[str, Tensor]:
    """What the authors' code would have saved for a network with these weights."""
    state = {}
    for key, name in published_keys(network).items():
        value = network.state_dict()[key]
        convolution = ".weight_layer." in name and name.endswith(".weight")
        state[prefix + name] = value.reshape(*value.shape, 1, 1, 1) if convolution else value
    return state


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["checkpoint file", "bare file", "mapping"])
def test_round_trip(name: str, layout: str, tmp_path: Path) -> None:
    trained, path = small(name), tmp_path / "model_last.pth"
    state = published_state(trained, "module." if layout == "checkpoint file" else "")
    torch.save({"epoch": 300, "state_dict": state, "optim_dict": {}} if layout == "checkpoint file" else state, path)
    torch.manual_seed(7)
    fresh = SMALL[name]().double().eval()
    assert load_published_weights(fresh, state if layout == "mapping" else path) is fresh
    assert all(
        torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), trained.state_dict().values(), strict=True)
    )
    image, mask = random_case(1, 4, (8, 8, 8))
    assert torch.equal(fresh(image, mask), trained(image, mask))


@pytest.mark.parametrize("name", ["mmformer", "m2ftrans"])
def test_positions_of_another_patch_size_are_interpolated(name: str) -> None:
    trained = small(name, position_size=2)
    network = load_published_weights(SMALL[name](position_size=4).double().eval(), published_state(trained))
    image, mask = random_case(1, 4, (16, 16, 16))
    torch.testing.assert_close(network(image, mask), trained(image, mask))  # which interpolates in its forward pass


def test_one_error_names_everything_that_is_wrong() -> None:
    network = small("rfnet")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = published_state(network)
    state["module.decoder_fuse.seg_layer.bias"] = torch.zeros(3)
    del state["module.t1_encoder.e2_c3.conv.weight"]
    state["module.t1_encoder.e9_c3.conv.weight"] = torch.zeros(2)
    state["module.decoder_sep.seg_layer.weight"] = state["module.decoder_sep.seg_layer.weight"] + 1
    with pytest.raises(ValueError, match="does not fit RFNet: 3 of") as error:
        load_published_weights(network, state)
    for text in (
        "shape: decoder_fuse.seg_layer.bias is [3], the network needs [4]",
        "missing: t1_encoder.e2_c3.conv.weight",
        "unexpected: t1_encoder.e9_c3.conv.weight",
    ):
        assert text in str(error.value)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"state_dict": {"a": 1}}, {}])
def test_files_without_a_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth holds no state dict"):
        load_published_weights(small("rfnet"), tmp_path / "x.pth")


class Harmful:
    """Pickled code that must never run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


def test_files_that_are_not_safe_to_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Harmful()}, tmp_path / "x.pth")
    (tmp_path / "y.pth").write_bytes(b"no checkpoint")
    for name in ("x.pth", "y.pth"):
        with pytest.raises(ValueError, match=f"{name} is not a checkpoint that can be read safely"):
            load_published_weights(small("rfnet"), tmp_path / name)
    assert "executed" not in capsys.readouterr().out
    with pytest.raises(FileNotFoundError):
        load_published_weights(small("rfnet"), tmp_path / "z.pth")
