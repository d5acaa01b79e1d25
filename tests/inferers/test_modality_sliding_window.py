from __future__ import annotations

import copy

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer, sliding_window_inference
from torch import Tensor, nn

from medmap_monai.inferers.modality_sliding_window import ModalitySlidingWindowInferer
from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.networks.base import DecoderOutput, ModalityFeatures, ModalityNetwork
from medmap_monai.networks.unet import ModalityUNet


class MaskReader(ModalityNetwork):
    """Logits that tell which mask and which voxels a window was given: channel m = mask_m * (image_m + m + 1)."""

    def __init__(self, modalities: int = 3, spatial_dims: int = 3, stride: int = 1) -> None:
        super().__init__(spatial_dims, modalities, modalities, stride, [nn.Identity() for _ in range(modalities)])
        self.calls: list[tuple[Tensor, Tensor]] = []

    def encode(self, image, present_mask=None):
        return ModalityFeatures([image.unsqueeze(2)], None, present_mask)

    def decode(self, features, modality_mask, rows=None):
        features = features if rows is None else features.rows(rows)
        image = features.pyramid[0].squeeze(2)
        assert type(image) is Tensor
        assert type(modality_mask) is Tensor
        self.calls.append((image, modality_mask))
        shape = [*modality_mask.shape] + [1] * (image.ndim - 2)
        offset = torch.arange(1, self.modalities + 1).reshape([1, -1] + [1] * (image.ndim - 2))
        return DecoderOutput(torch.where(modality_mask.reshape(shape), image + offset, 0.0), [], [], [])


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return ModalityUNet(3, in_channels=3, out_channels=4, channels=(4, 8), deep_supervision=0).eval()


def _batch(batch=3, size=(9, 8, 7)):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1)) + 0.1


MASKS = torch.tensor([[True, False, True], [False, True, False], [True, True, True], [False, False, True]])


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
@pytest.mark.parametrize("sw_batch_size", [1, 2, 3, 5, 64])
@pytest.mark.parametrize(("mode", "buffer_steps"), [("constant", None), ("gaussian", None), ("gaussian", 1)])
def test_every_window_gets_its_samples_mask(batch, sw_batch_size, mode, buffer_steps):
    image, mask = _batch(batch), MASKS[:batch]
    inferer = ModalitySlidingWindowInferer((4, 5, 3), sw_batch_size, mode=mode, buffer_steps=buffer_steps)
    result = inferer(image, MaskReader(), mask)
    offset = torch.arange(1, 4).reshape(1, 3, 1, 1, 1)
    expected = torch.where(mask[:, :, None, None, None], image + offset, 0.0)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(("batch", "sw_batch_size", "meta"), [(1, 2, True), (2, 1, False), (2, 3, True), (3, 2, False)])
def test_batch_equals_one_by_one(unet, batch, sw_batch_size, meta):
    image, mask = _batch(batch), MASKS[:batch]
    if meta:
        image = MetaTensor(image, affine=torch.diag(torch.tensor([2.0, 1, 1, 1])), meta={"case_id": "a"})
    inferer = ModalitySlidingWindowInferer((6, 4, 8), sw_batch_size)
    with torch.no_grad():
        together = inferer(image, unet, mask)
        single = torch.cat([inferer(image[i : i + 1], unet, mask[i : i + 1]) for i in range(batch)])
    assert isinstance(together, MetaTensor) == meta
    if meta:
        assert together.meta["case_id"] == "a"
        assert torch.equal(together.affine, image.affine)
    torch.testing.assert_close(torch.as_tensor(together), torch.as_tensor(single), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("size", "mode"), [((20, 9, 13), "gaussian"), ((6, 20, 8), "constant")])
def test_rounds_as_monais_function_does(unet, size, mode):
    image, mask = _batch(2, size), MASKS[:1]
    image[:, 1] = 0
    options = {"roi_size": (8, 8, 8), "sw_batch_size": 3, "overlap": 0.4, "mode": mode}
    with torch.no_grad():
        found = ModalitySlidingWindowInferer(**options)(image, unet, mask)
        expected = sliding_window_inference(image, predictor=lambda w: unet(w, mask.expand(len(w), -1)), **options)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("content", [float("nan"), float("inf"), 1e30])
def test_what_absent_channels_hold_has_no_influence(unet, content):
    image, mask = _batch(2), MASKS[:2]
    inferer = ModalitySlidingWindowInferer((6, 4, 8))
    zeroed = image.clone()
    zeroed[~mask] = 0
    filled = image.clone()
    filled[~mask] = content
    with torch.no_grad():
        expected = inferer(zeroed, unet, mask)
        assert torch.equal(inferer(filled, unet, mask), expected)
        assert torch.equal(inferer(MetaTensor(filled), unet, mask).as_tensor(), expected)
    assert torch.isfinite(expected).all()


def test_without_a_mask_presence_is_that_of_the_whole_volume(unet):
    image = torch.zeros(2, 3, 16, 8, 8)
    image[0, 0, :4, :4, :4] = 1.0  # confined to a corner: most windows do not see it
    image[0, 2] = 1.0
    image[1, 1] = 1.0
    network = MaskReader()
    inferer = ModalitySlidingWindowInferer((4, 4, 4), sw_batch_size=4)
    inferer(image, network)
    masks = {tuple(row.tolist()) for _, rows in network.calls for row in rows}
    assert masks == {(True, False, True), (False, True, False)}
    with torch.no_grad():
        derived = inferer(image, unet)
        given = inferer(image, unet, torch.tensor([[True, False, True], [False, True, False]]))
    assert torch.equal(derived, given)


@pytest.mark.parametrize("mask", [MASKS[0], MASKS[:1], MASKS[:1].float()])
def test_one_mask_serves_the_whole_batch(unet, mask):
    image = _batch(2)
    inferer = ModalitySlidingWindowInferer((6, 4, 8))
    with torch.no_grad():
        expected = inferer(image, unet, MASKS[:1].repeat(2, 1))
        assert torch.equal(inferer(image, unet, modality_mask=mask), expected)


def test_a_mask_of_the_wrong_shape_is_an_error(unet):
    with pytest.raises(ValueError, match="modality mask has shape"):
        ModalitySlidingWindowInferer((6, 4, 8))(_batch(3), unet, MASKS[:2])


@pytest.mark.parametrize("blend", ["logits", "probabilities"])
def test_background_windows_are_skipped_and_become_background(blend):
    image = torch.zeros(1, 3, 16, 4, 4)
    image[:, 0, :4] = 1.0
    image[:, 1, 12:] = 1.0
    for skip in (True, False):
        network = MaskReader()
        inferer = ModalitySlidingWindowInferer((4, 4, 4), 2, 0.0, "constant", blend, skip_background=skip)
        result = inferer(image, network, torch.tensor([[True, False, False]]))  # modality 1 is not available
        windows = sum(len(image) for image, _ in network.calls)
        assert windows == (1 if skip else 4)
    result = ModalitySlidingWindowInferer((4, 4, 4), 2, 0.0, "constant", blend)(image, network, MASKS[:1])
    assert (result[:, :, 4:].argmax(dim=1) == 0).all()
    assert result[0, 0, -1, 0, 0] == (1.0 if blend == "probabilities" else 10.0)


def test_a_volume_with_nothing_in_it_is_background(unet):
    result = ModalitySlidingWindowInferer((4, 4, 4))(torch.zeros(2, 3, 8, 8, 8), unet)
    assert torch.isfinite(result).all()
    assert (result.argmax(dim=1) == 0).all()


def test_probabilities_are_averaged_as_probabilities(unet):
    image, mask = _batch(1), MASKS[:1]
    with torch.no_grad():
        result = ModalitySlidingWindowInferer((4, 4, 4), 2, 0.5, "constant", "probabilities")(image, unet, mask)
        plain = SlidingWindowInferer((4, 4, 4), 2, 0.5, "constant")
        expected = plain(image, lambda x: unet(x, mask.expand(len(x), -1)).softmax(1))
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(result.sum(dim=1), torch.ones(1, 9, 8, 7))


@pytest.mark.parametrize("size", [(3, 3, 3), (5, 20, 8), (8, 8, 8), (17, 9, 11)])
@pytest.mark.parametrize("roi", [(8, 8, 8), (7, 6, 5), 8, (-1, 8, 0)])
def test_any_volume_and_window_size(unet, size, roi):
    image = _batch(1, size)
    with torch.no_grad():
        result = ModalitySlidingWindowInferer(roi)(image, unet, MASKS[:1])
    assert result.shape == (1, 4, *size)
    assert torch.isfinite(result).all()


def test_window_is_rounded_up_to_the_stride_of_the_network():
    network = MaskReader(stride=4)
    ModalitySlidingWindowInferer((5, 8, -1), cache_roi_weight_map=False)(_batch(1, (16, 16, 10)), network, MASKS[:1])
    assert {tuple(image.shape[2:]) for image, _ in network.calls} == {(8, 8, 12)}


def test_cached_weights_are_used_only_where_they_fit(unet):
    image = _batch(1)
    for roi in ((4, 4, 4), (5, 4, 3)):
        plain, cached = (ModalitySlidingWindowInferer(roi, mode="gaussian", cache_roi_weight_map=c) for c in (0, 1))
        with torch.no_grad():
            torch.testing.assert_close(plain(image, unet, MASKS[:1]), cached(image, unet, MASKS[:1]))


class _Ddp(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_methods_and_wrappers_are_opened(unet):
    method = ModalityDropoutBaseline(copy.deepcopy(unet), nn.CrossEntropyLoss())
    image = _batch(1)
    inferer = ModalitySlidingWindowInferer((6, 4, 8))
    with torch.no_grad():
        expected = inferer(image, unet, MASKS[:1])
        for holder in (method, _Ddp(method), _Ddp(unet)):
            assert torch.equal(inferer(image, holder.eval(), MASKS[:1]), expected)


def test_functions_and_scripted_networks_are_called_as_they_are(unet):
    image = _batch(2)
    image[:, :, 4:] = 0
    inferer = ModalitySlidingWindowInferer((4, 4, 4), 3)
    with torch.no_grad():
        expected = inferer(image, unet, MASKS[:2])
        for called in (lambda x, m: unet(x, m), torch.jit.script(unet)):
            torch.testing.assert_close(inferer(image, called, MASKS[:2]), expected, atol=1e-5, rtol=1e-4)


def test_further_arguments_reach_the_network():
    seen = []

    def network(image, mask, factor, bias=0.0):
        seen.append((factor, bias))
        return image * factor + bias

    image = _batch(1)
    result = ModalitySlidingWindowInferer((4, 4, 4), mode="constant")(image, network, MASKS[2:3], 2.0, bias=1.0)
    assert set(seen) == {(2.0, 1.0)}
    torch.testing.assert_close(result, image * 2 + 1)


def test_slices_of_a_volume_go_through_a_two_dimensional_network():
    network = MaskReader(spatial_dims=2)
    image, mask = MetaTensor(_batch(2, (9, 8, 5)), meta={"case_id": "a"}), MASKS[:2]
    result = ModalitySlidingWindowInferer((4, 4), 3)(image, network, mask)
    expected = torch.where(
        mask[:, :, None, None, None], image.as_tensor() + torch.arange(1, 4).reshape(1, 3, 1, 1, 1), 0
    )
    torch.testing.assert_close(result.as_tensor(), expected)
    assert result.meta["case_id"] == "a"


@pytest.mark.parametrize("size", [8, 12])
def test_gradients_flow_through_one_window_or_many(size):
    network = ModalityUNet(3, 2, 3, channels=(4, 8), deep_supervision=0)
    ModalitySlidingWindowInferer(8)(torch.rand(1, 2, size, 8, 8), network).sum().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in network.encoders.parameters())


def test_ill_arguments():
    with pytest.raises(ValueError, match="with_coord"):
        ModalitySlidingWindowInferer((4, 4, 4), with_coord=False)
    with pytest.raises(ValueError, match="probabilities"):
        ModalitySlidingWindowInferer((4, 4, 4), blend="maximum")
