from __future__ import annotations

from itertools import product

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from medmap_monai.inferers.modality_sliding_window import ModalitySlidingWindowInferer
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.early_fusion_unet import EarlyFusionUNet
from medmap_monai.networks.unet import ModalityUNet

ALL_SUBSETS = [mask for mask in product((False, True), repeat=3) if any(mask)]


def _network(kind="unet", spatial_dims=3):
    torch.manual_seed(0)
    if kind == "early":
        return EarlyFusionUNet(spatial_dims, 3, 4, channels=(4, 8), deep_supervision=0).eval()
    net = ModalityUNet(spatial_dims, 3, 4, channels=(4, 8), deep_supervision=0).eval()
    return AlignedNetwork(net, levels=[0, 1]).eval() if kind == "aligned" else net


def _image(batch=1, size=(12, 17, 10)):
    image = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)) + 0.1
    image[:, :, :, : size[1] // 2] = 0  # background windows
    image[:, 1, : size[0] // 2] = 0  # windows that are background for modality 1 only
    return image


def _one_by_one(image, network, masks, **options):
    inferer = ModalitySlidingWindowInferer(**options)
    with torch.no_grad():
        return {mask: torch.as_tensor(inferer(image, network, torch.tensor([mask]))) for mask in masks}


@pytest.mark.parametrize(
    ("network", "batch", "blend", "memory_limit"),
    [
        ("unet", 1, "logits", 2**30),
        ("unet", 2, "logits", 1),
        ("unet", 1, "probabilities", 1),
        ("early", 1, "logits", 2**30),
        ("early", 2, "probabilities", 2**30),
        ("aligned", 1, "logits", 1),
        ("aligned", 2, "logits", 2**30),
    ],
)
def test_equals_subset_by_subset(network, batch, blend, memory_limit):
    net, image = _network(network), _image(batch)
    options = {"roi_size": (8, 8, 7), "sw_batch_size": 3, "blend": blend}
    expected = _one_by_one(image, net, ALL_SUBSETS, **options)
    scores = SubsetSweepInferer(**options, output="scores", memory_limit=memory_limit)(image, net)
    labels = SubsetSweepInferer(**options, memory_limit=memory_limit)(image, net)
    assert set(scores) == set(labels) == set(ALL_SUBSETS)
    for mask in ALL_SUBSETS:
        torch.testing.assert_close(scores[mask], expected[mask], atol=1e-5, rtol=1e-4)
        assert labels[mask].dtype == torch.uint8
        assert torch.equal(labels[mask].long(), expected[mask].argmax(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("sw_batch_size", "roi_size", "mode", "skip_background"),
    [
        (1, (16, 32, 16), "gaussian", True),
        (4, (16, 32, 16), "constant", False),
        (1, (4, 8, -1), "constant", True),
        (2, (4, 8, -1), "gaussian", False),
        (5, 6, "gaussian", True),
        (3, (12, 17, 8), "constant", True),
    ],
)
def test_equals_subset_by_subset_for_any_windows(sw_batch_size, roi_size, mode, skip_background):
    net, image = _network(), _image()
    masks = [(True, False, False), (False, True, False), (True, True, True)]
    options = {"roi_size": roi_size, "sw_batch_size": sw_batch_size, "mode": mode, "skip_background": skip_background}
    expected = _one_by_one(image, net, masks, **options)
    scores = SubsetSweepInferer(**options, subsets=masks, output="scores")(image, net)
    assert list(scores) == masks
    for mask in masks:
        torch.testing.assert_close(scores[mask], expected[mask], atol=1e-5, rtol=1e-4)


def test_slices_through_a_two_dimensional_network():
    net, image = _network(spatial_dims=2), _image(size=(12, 16, 3))
    options = {"roi_size": (8, 8), "sw_batch_size": 2}
    expected = _one_by_one(image, net, ALL_SUBSETS, **options)
    labels = SubsetSweepInferer(**options)(MetaTensor(image), net)
    for mask, result in labels.items():
        assert isinstance(result, MetaTensor)
        assert torch.equal(result.as_tensor().long(), expected[mask].argmax(dim=1, keepdim=True))


class _Counting(ModalityUNet):
    encoded = 0

    def encode(self, image, present_mask=None):
        self.encoded += image.shape[0]
        return super().encode(image, present_mask)


def test_each_window_is_encoded_once_and_background_not_at_all():
    net = _Counting(3, 3, 4, channels=(4, 8), deep_supervision=0).eval()
    image = torch.zeros(1, 3, 16, 4, 4)
    image[:, :, :8] = 1.0
    SubsetSweepInferer((4, 4, 4), overlap=0.0)(image, net)
    assert net.encoded == 2


def test_memory_bound_groups_subsets():
    net = _Counting(3, 3, 4, channels=(4, 8), deep_supervision=0).eval()
    image = torch.ones(1, 3, 8, 4, 4)
    per_subset = 4 * 4 * 4 * 4 * 4 + 8 * 4 * 4  # a slab of 4 planes in float32 for 4 classes, and the labels
    SubsetSweepInferer((4, 4, 4), overlap=0.0, memory_limit=3 * per_subset)(image, net)
    assert net.encoded == 2 * 3  # 7 subsets, 3 at a time


def test_results_come_one_by_one_with_meta_data():
    image = MetaTensor(_image(), meta={"case_id": "a"})
    sweep = SubsetSweepInferer((8, 8, 8), memory_limit=1).sweep(image, _network())
    mask, result = next(sweep)
    assert mask in ALL_SUBSETS
    assert result.meta["case_id"] == "a"
    assert torch.is_grad_enabled()  # the generator does not leak its no-grad mode
    assert not result.requires_grad


def test_absent_modalities_are_left_out_and_without_influence():
    net, image = _network(), _image()
    present = torch.tensor([[True, False, True]])
    image[:, 1] = float("nan")
    results = SubsetSweepInferer((8, 8, 8))(image, net, present)
    assert set(results) == {(True, False, False), (False, False, True), (True, False, True)}
    image[:, 1] = 0
    again = SubsetSweepInferer((8, 8, 8))(image, net)
    assert all(torch.equal(results[mask], again[mask]) for mask in results)


def test_a_batch_does_the_subsets_that_every_sample_has():
    present = torch.tensor([[True, True, False], [True, False, True]])
    assert set(SubsetSweepInferer((8, 8, 8))(_image(2), _network(), present)) == {(True, False, False)}


class _Method(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network


def test_methods_are_opened():
    net, image = _network(), _image()
    inferer = SubsetSweepInferer((8, 8, 8), subsets=[(True, False, True)])
    assert torch.equal(inferer(image, _Method(net))[True, False, True], inferer(image, net)[True, False, True])


def test_errors():
    image = _image()
    with pytest.raises(TypeError, match="ModalityNetwork"):
        SubsetSweepInferer((8, 8, 8))(image, nn.Identity())
    with pytest.raises(ValueError, match="non-empty mask of 3"):
        SubsetSweepInferer((8, 8, 8), subsets=[(True, False)])(image, _network())
    with pytest.raises(ValueError, match="no subset to do"):
        SubsetSweepInferer((8, 8, 8))(torch.zeros_like(image), _network())
    with pytest.raises(ValueError, match="sw_batch_size"):
        SubsetSweepInferer((8, 8, 8), sw_batch_size=0)
    with pytest.raises(ValueError, match="scores"):
        SubsetSweepInferer((8, 8, 8), output="everything")
    with pytest.raises(TypeError, match="sigma"):
        SubsetSweepInferer((8, 8, 8), sigma=0.2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("image_device", "options"), [("cuda", {}), ("cuda", {"device": "cpu"}), ("cpu", {"sw_device": "cuda"})]
)
def test_devices_can_be_mixed(image_device, options, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # it rounds the inputs of convolutions to 10 bits
    net, image = _network(), _image(2)
    expected = SubsetSweepInferer((8, 8, 8), output="scores")(image, net)
    found = SubsetSweepInferer((8, 8, 8), output="scores", **options)(image.to(image_device), net.cuda())
    for mask, scores in expected.items():
        torch.testing.assert_close(found[mask].cpu(), scores, atol=1e-3, rtol=1e-3)
