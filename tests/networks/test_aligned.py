"""AlignedNetwork keeps the network contract and does what it says, on every kind of network."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medmap_monai.modalities import BRATS
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import ModalityFeatures, ModalityNetwork
from medmap_monai.networks.early_fusion_unet import EarlyFusionUNet
from medmap_monai.networks.unet import ModalityUNet

SIZE = (8, 8, 8)


def unet(modalities: int = 4) -> ModalityNetwork:
    return ModalityUNet(3, modalities, 3, channels=(4, 4, 8), deep_supervision=1)


def early(modalities: int = 4) -> ModalityNetwork:
    return EarlyFusionUNet(3, modalities, 3, channels=(4, 4, 8), embedding_channels=2, deep_supervision=1)


WRAPPED = [
    pytest.param(unet, {}, id="unet-adaptive"),
    pytest.param(unet, {"levels": [0, -1], "inference_scale": "weight"}, id="unet-two-levels-scaled"),
    pytest.param(unet, {"levels": [0], "replace_levels": [0, 1, 2], "shared_weights": True}, id="unet-replace-all"),
    pytest.param(unet, {"anchor": "fixed", "weights": 1, "detach_anchor": True}, id="unet-fixed"),
    pytest.param(unet, {"anchor": "normal", "learn_normal": True}, id="unet-normal"),
    pytest.param(unet, {"anchor": "none"}, id="unet-none"),
    pytest.param(early, {"training_source": "available"}, id="early-adaptive"),
]


def aligned(make: Callable[[int], ModalityNetwork], modalities: int = 4, **kwargs: object) -> AlignedNetwork:
    """As published, where a test does not say otherwise."""
    torch.manual_seed(0)
    published: dict[str, object] = {"levels": [0], "training_source": "full"}
    return AlignedNetwork(make(modalities), **{**published, **kwargs})  # type: ignore[arg-type]


def image_of(batch: int = 2, modalities: int = 4) -> Tensor:
    return torch.randn(batch, modalities, *SIZE, generator=torch.Generator().manual_seed(1))


def masks(*rows: str) -> Tensor:
    return torch.tensor([[bit == "1" for bit in row] for row in rows])


@pytest.mark.parametrize(("make", "kwargs"), WRAPPED)
@torch.no_grad()
def test_absent_content_has_no_influence(make: Callable[[int], ModalityNetwork], kwargs: dict[str, object]) -> None:
    net, image = aligned(make, **kwargs).eval(), image_of()
    for rows in (("1011", "0100"), ("0001", "1110"), ("1111", "0010")):
        mask = masks(*rows)
        spoiled = torch.where(mask[:, :, None, None, None], image, torch.full_like(image, float("nan")))
        assert torch.equal(net(image, mask), net(spoiled, mask))


@pytest.mark.parametrize(("make", "kwargs"), WRAPPED)
@torch.no_grad()
def test_encode_once_serves_every_subset(make: Callable[[int], ModalityNetwork], kwargs: dict[str, object]) -> None:
    net, image = aligned(make, **kwargs).eval(), image_of()
    features = net.prepare(net.encode(image, masks("1111", "1111")))
    for flags in BRATS.subset_masks():
        mask = torch.tensor([flags, flags])
        torch.testing.assert_close(net.decode(features, mask).logits, net(image, mask), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("make", "kwargs"), WRAPPED)
@torch.no_grad()
def test_masks_act_per_sample(make: Callable[[int], ModalityNetwork], kwargs: dict[str, object]) -> None:
    net, image, mask = aligned(make, **kwargs).eval(), image_of(), masks("1001", "0110")
    both = net(image, mask)
    for row in range(2):
        torch.testing.assert_close(
            both[row : row + 1], net(image[row : row + 1], mask[row : row + 1]), rtol=0, atol=2e-5
        )


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(("make", "kwargs"), WRAPPED)
@torch.no_grad()
def test_torchscript_and_trace(make: Callable[[int], ModalityNetwork], kwargs: dict[str, object]) -> None:
    net, image = aligned(make, **kwargs).eval(), image_of()
    scripted = torch.jit.script(net)
    traced = torch.jit.trace(net, (image, masks("1111", "1000")))
    for mask in (masks("1011", "0100"), masks("0001", "0000")):
        expected = net(image, mask)
        assert expected.isfinite().all()
        torch.testing.assert_close(scripted(image, mask), expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(traced(image, mask), expected, rtol=0, atol=2e-5)


@torch.no_grad()
def test_onnx_export_runs(tmp_path: object) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, image, mask = aligned(unet).eval(), image_of(), masks("1011", "0100")
    path = f"{tmp_path}/aligned.onnx"
    torch.onnx.export(net, (image, mask), path, input_names=["image", "mask"], verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    other = masks("0001", "1110")
    (got,) = session.run(None, {"image": image.numpy(), "mask": other.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), net(image, other), rtol=0, atol=1e-4)


def rfnet() -> ModalityNetwork:
    return importlib.import_module("medmap_monai.networks.rfnet").RFNet(3, 4, 3, base_width=2, levels=3)


def dmafnet() -> ModalityNetwork:
    module = importlib.import_module("medmap_monai.networks.dmafnet")
    return module.DMAFNet(3, 4, 3, channels=(4, 4, 8), deep_supervision=1)


def mmformer() -> ModalityNetwork:
    module = importlib.import_module("medmap_monai.networks.mmformer")
    return module.MMFormer(3, 4, 3, base_width=2, levels=3, token_width=16, heads=2, mlp_width=16, position_size=2)


def m2ftrans() -> ModalityNetwork:
    module = pytest.importorskip("medmap_monai.networks.m2ftrans")
    return module.M2FTrans(3, 4, 3, base_width=2, levels=3, heads=2, mlp_width=16, position_size=2)


@pytest.mark.parametrize("levels", [[0], [0, -1]])
@pytest.mark.parametrize("make", [rfnet, dmafnet, mmformer, m2ftrans])
def test_every_backbone_keeps_the_contract_when_wrapped(make: Callable[[], ModalityNetwork], levels: list[int]) -> None:
    torch.manual_seed(0)
    net = AlignedNetwork(make(), levels=levels, training_source="full").eval()
    image, mask = image_of(), masks("1010", "0100")
    with torch.no_grad():
        got = net(image, mask)
        spoiled = torch.where(mask[:, :, None, None, None], image, torch.full_like(image, float("nan")))
        assert torch.equal(net(spoiled, mask), got)
        assert not torch.allclose(got, net.network(image, mask), atol=1e-4)  # the anchor is seen
        complete = masks("1111", "1111")
        features = net.prepare(net.encode(image, complete))
        torch.testing.assert_close(net.decode(features, mask).logits, got, rtol=0, atol=1e-4)
        torch.testing.assert_close(net(image, complete), net.network(image, complete), rtol=0, atol=1e-4)
        for row in range(2):
            alone = net(image[row : row + 1], mask[row : row + 1])
            torch.testing.assert_close(got[row : row + 1], alone, rtol=0, atol=1e-3)
    output = net.train().decode(net.encode(image, complete), mask)
    output.logits.square().mean().backward()
    assert net.mixture.grad is not None
    assert (net.mixture.grad.abs().sum(dim=1) > 0).all()
    for encoder in net.encoders:
        assert sum(p.grad.abs().sum() for p in encoder.parameters() if p.grad is not None) > 0


@torch.no_grad()
def test_anchor_none_is_the_wrapped_network() -> None:
    net, image, mask = aligned(unet, anchor="none").eval(), image_of(), masks("1011", "0100")
    assert torch.equal(net(image, mask), net.network(image, mask))
    assert all(key.startswith("network.") for key in net.state_dict())


@torch.no_grad()
def test_nothing_is_replaced_when_nothing_is_missing() -> None:
    net, image = aligned(unet, levels=[0, 1, 2]).eval(), image_of()
    assert torch.equal(net(image, masks("1111", "1111")), net.network(image, masks("1111", "1111")))


@torch.no_grad()
def test_fusion_sees_the_replaced_features() -> None:
    """The mask of the backbone must not zero them again: with them the output differs from the bare backbone's."""
    for make in (unet, early):
        net, image, mask = aligned(make).eval(), image_of(), masks("1010", "0110")
        assert not torch.allclose(net(image, mask), net.network(image, mask), atol=1e-3)
        assert torch.equal(net.visible_masks(mask, 1)[:, 0], masks("1111", "1111"))


@torch.no_grad()
def test_replacement_without_alignment_levels_and_the_reverse() -> None:
    image, mask = image_of(), masks("1010", "0110")
    net = aligned(unet, replace_levels=[]).eval()
    assert torch.equal(net(image, mask), net.network(image, mask))
    features = net.encode(image, masks("1111", "1111"))
    assert set(net.anchors(features, masks("1111", "1111"))) == {0}


@torch.no_grad()
def test_training_source() -> None:
    """Privileged replacement mixes hidden modalities in, the other rule does not, inference never does."""
    image, mask = image_of(), masks("1010", "0110")
    for source, mode, hidden_matters in (("full", True, True), ("available", True, False), ("full", False, False)):
        net = aligned(unet, training_source=source).train(mode)
        features = net.encode(image, masks("1111", "1111"))
        changed = [level.clone() for level in features.pyramid]
        changed[0][~mask] += 1.0
        other = ModalityFeatures(changed, None, features.present)
        same = torch.equal(net.fill(features, mask).pyramid[0], net.fill(other, mask).pyramid[0])
        assert same != hidden_matters


def test_privileged_replacement_needs_to_know_what_was_present() -> None:
    net = aligned(unet).train()
    features = net.encode(image_of(), masks("1111", "1111"))
    by_hand = ModalityFeatures(features.pyramid)
    with pytest.raises(ValueError, match="present"):
        net.decode(by_hand, masks("1010", "0110"))


def test_privileged_replacement_never_uses_what_does_not_exist() -> None:
    net = aligned(unet).train()
    present = masks("1100", "0111")
    weights = net.anchor_weights(present, 0)
    assert torch.equal(weights > 0, present)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))


def test_weights_are_renormalised_over_the_available() -> None:
    net = aligned(unet, anchor="fixed", weights=[1, 2, 3, 4])
    torch.testing.assert_close(
        net.anchor_weights(masks("1001", "0000", "1111"), 0),
        torch.tensor([[0.2, 0, 0, 0.8], [0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]]),
    )
    one_hot = aligned(unet, anchor="fixed", weights=1)
    torch.testing.assert_close(
        one_hot.anchor_weights(masks("0110", "1011"), 0), torch.tensor([[0, 1, 0, 0], [1 / 3, 0, 1 / 3, 1 / 3]])
    )
    uniform = aligned(unet, anchor="fixed")
    torch.testing.assert_close(uniform.anchor_weights(masks("0110"), 0), torch.tensor([[0, 0.5, 0.5, 0]]))


def test_adaptive_weights_are_one_vector_per_level_or_shared() -> None:
    net = aligned(unet, levels=[0, 2], replace_levels=[0, 1])
    assert net.mixture.shape == (3, 4)
    assert aligned(unet, levels=[0, 2], shared_weights=True).mixture.shape == (1, 4)
    torch.testing.assert_close(
        net.anchor_weights(masks("1111"), 2)[0], torch.softmax(net.mixture[1], dim=0), rtol=1e-6, atol=0
    )
    assert aligned(unet, init_std=0.0).mixture.abs().sum() == 0


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_reach_anchor_weights_and_every_encoder(detach: bool) -> None:
    """Through the segmentation alone: one modality is visible, the others count through the anchor."""
    net = aligned(unet, detach_anchor=detach).train()
    net.decode(net.encode(image_of(), masks("1111", "1111")), masks("1000", "1000")).logits.square().mean().backward()
    assert net.mixture.grad is not None
    assert net.mixture.grad.abs().sum() > 0
    for m, encoder in enumerate(net.encoders):
        received = sum(p.grad.abs().sum() for p in encoder.parameters() if p.grad is not None)
        assert bool(received > 0) == (m == 0 or not detach)


def test_state_dict_keys_are_stable() -> None:
    bare = {f"network.{key}" for key in unet().state_dict()} | {"placement"}
    assert set(aligned(unet).state_dict()) == bare | {"mixture"}
    assert set(aligned(unet, anchor="fixed", weights="uniform").state_dict()) == bare | {"mixture"}
    assert set(aligned(unet, anchor="normal").state_dict()) == bare
    learned = {"normal_mean", "normal_log_variance"}
    assert set(aligned(unet, anchor="normal", learn_normal=True).state_dict()) == bare | learned


@pytest.mark.parametrize(
    "trained",
    [
        {"levels": [-1]},
        {"levels": [0], "replace_levels": []},
        {"levels": [0], "replace_levels": [0], "anchor": "fixed"},
        {"levels": [0], "inference_scale": "weight"},
    ],
)
def test_weights_of_another_placement_do_not_load(trained: dict[str, object]) -> None:
    """They have the same keys and shapes, and would segment wrongly."""
    network = aligned(unet, levels=[0])
    with pytest.raises(RuntimeError, match=r"weights are of a network with anchor .* this one has anchor 'adaptive'"):
        network.load_state_dict(aligned(unet, **trained).state_dict())
    network.load_state_dict(aligned(unet, levels=[0]).state_dict())


def test_fixed_weights_come_with_the_file() -> None:
    network = aligned(unet, anchor="fixed")
    network.load_state_dict(aligned(unet, anchor="fixed", weights=1).state_dict())
    torch.testing.assert_close(network.anchor_weights(masks("1111"), 0), torch.tensor([[0.0, 1, 0, 0]]))


def test_tokens_are_the_deepest_level() -> None:
    """Where a network has tokens, these are replaced and aligned at the deepest level, and not the pyramid."""
    net = aligned(unet, levels=[-1]).eval()
    pyramid = [torch.randn(2, 4, 4, 4, 4, 4), torch.randn(2, 4, 8, 2, 2, 2)]
    tokens = torch.randn(2, 4, 16, 8)
    features = ModalityFeatures(pyramid, tokens, masks("1111", "1111"))
    filled = net.fill(features, masks("1010", "0110"))
    assert filled.tokens is not None
    assert torch.equal(filled.pyramid[1], pyramid[1])
    assert torch.equal(filled.tokens[masks("1010", "0110")], tokens[masks("1010", "0110")])
    assert not torch.equal(filled.tokens, tokens)
    maps, anchor = net.anchors(features, masks("1111", "1111"))[-1]
    assert maps is tokens
    assert anchor.mean.shape == (2, 16, 8)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"anchor": "mixture"}, "adaptive"),
        ({"training_source": "all"}, "available"),
        ({"inference_scale": "on"}, "weight"),
        ({"levels": []}, "at least one level"),
        ({"anchor": "fixed", "weights": True}, "an index"),
        ({"anchor": "fixed", "weights": "t1ce"}, "uniform"),
        ({"anchor": "fixed", "weights": 4}, "0..3"),
        ({"anchor": "fixed", "weights": [1, 1]}, "4 numbers"),
        ({"anchor": "fixed", "weights": [0, 0, 0, 0]}, "all zero"),
        ({"anchor": "fixed", "weights": [1, -1, 1, 1]}, "negative"),
        ({"weights": "uniform"}, "anchor='fixed'"),
    ],
)
def test_ill_arguments(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aligned(unet, **kwargs)


def test_a_level_that_does_not_exist_is_an_error() -> None:
    net = aligned(early, levels=[1]).eval()
    with pytest.raises(ValueError, match=r"level 1 does not exist: the network has levels 0\.\.0"):
        net(image_of(), masks("1111", "1000"))
