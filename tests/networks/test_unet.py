from __future__ import annotations

import pytest
import torch

from medmap_monai.networks.base import available, background_where_empty
from medmap_monai.networks.blocks.backend import dense_path
from medmap_monai.networks.blocks.plain_instance_norm import PlainInstanceNorm
from medmap_monai.networks.unet import ModalityUNet

CASES = [
    # spatial_dims, modalities, classes, channels, deep supervision, spatial size
    (2, 1, 2, (4, 8), 0, (16, 12)),
    (2, 3, 6, (4, 8, 16), 1, (24, 16)),
    (3, 4, 4, (4, 8, 16), 1, (8, 16, 12)),
    (3, 5, 3, (4, 8), 0, (10, 8, 6)),
]


def make(dims: int, modalities: int, classes: int, channels: tuple[int, ...], deep: int) -> ModalityUNet:
    torch.manual_seed(0)
    return ModalityUNet(dims, modalities, classes, channels=channels, deep_supervision=deep).eval()


@pytest.mark.parametrize(("dims", "modalities", "classes", "channels", "deep", "size"), CASES)
def test_shapes(dims, modalities, classes, channels, deep, size) -> None:  # type: ignore[no-untyped-def]
    network = make(dims, modalities, classes, channels, deep)
    image = torch.randn(3, modalities, *size)
    assert network(image).shape == (3, classes, *size)
    features = network.encode(image)
    assert [f.shape[1:3] for f in features.pyramid] == [(modalities, c) for c in channels]
    output = network.decode(features, torch.ones(3, modalities, dtype=torch.bool))
    assert len(output.deep_logits) == deep
    assert output.features[0].shape[2:] == size
    assert len(output.fused) == len(channels)


@pytest.mark.parametrize(("dims", "modalities", "classes", "channels", "deep", "size"), CASES[1:])
@pytest.mark.parametrize("content", [0.0, 7.0, float("nan"), float("inf")])
def test_absent_channels_have_no_influence(dims, modalities, classes, channels, deep, size, content) -> None:  # type: ignore[no-untyped-def]
    network = make(dims, modalities, classes, channels, deep)
    image = torch.randn(2, modalities, *size)
    mask = torch.rand(2, modalities) > 0.5
    mask[:, 0] = True
    mask[:, 1] = False
    changed = image.clone()
    changed[~mask] = content
    assert torch.equal(network(image, mask), network(changed, mask))
    network.train()
    assert torch.equal(network(image, mask), network(changed, mask))


def test_rows_do_not_depend_on_their_batch_mates() -> None:
    network = make(3, 4, 4, (4, 8, 16), 1)
    image = torch.randn(3, 4, 8, 8, 8)
    mask = torch.tensor([[True, False, True, False], [False, True, False, False], [True, True, True, True]])
    together = network(image, mask)
    for row in range(3):
        alone = network(image[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_a_row_without_any_modality_is_finite_background() -> None:
    network = make(3, 4, 4, (4, 8), 0)
    image = torch.randn(2, 4, 8, 8, 8)
    mask = torch.tensor([[True, True, False, True], [False] * 4])
    logits = network(image, mask)
    assert torch.isfinite(logits).all()
    assert (logits[1].argmax(0) == 0).all()
    assert torch.isfinite(network(torch.full_like(image, float("nan")), torch.zeros(2, 4, dtype=torch.bool))).all()


def test_without_a_mask_a_zero_channel_is_absent() -> None:
    network = make(2, 3, 3, (4, 8), 0)
    image = torch.randn(2, 3, 8, 8)
    image[0, 1] = 0
    mask = torch.tensor([[True, False, True], [True, True, True]])
    assert torch.equal(available(image, None), mask)
    assert torch.equal(network(image), network(image, mask))


def test_torchscript_and_trace_equal_eager() -> None:
    network = make(3, 4, 4, (4, 8, 16), 1)
    image = torch.randn(2, 4, 8, 8, 8)
    mask = torch.tensor([[True, False, False, True], [False, True, False, False]])
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted(image, mask), network(image, mask))
    torch.testing.assert_close(scripted(image), network(image))
    traced = torch.jit.trace(network, (image, mask), check_trace=False)
    torch.testing.assert_close(traced(image, mask), network(image, mask), rtol=1e-4, atol=1e-5)


def test_prepared_features_serve_every_subset() -> None:
    network = make(3, 3, 3, (4, 8), 0)
    image = torch.randn(1, 3, 8, 8, 8)
    features = network.prepare(network.encode(image, torch.ones(1, 3, dtype=torch.bool)))
    for bits in range(1, 8):
        mask = torch.tensor([[bool(bits >> m & 1) for m in range(3)]])
        torch.testing.assert_close(network.decode(features, mask).logits, network(image, mask), rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_is_finite() -> None:
    network = make(3, 2, 3, (4, 8), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(network(torch.randn(1, 2, 8, 8, 8))).all()


def test_autocast_leaves_instance_norm_in_the_precision_of_its_input() -> None:
    x = 3 + 2 * torch.randn(2, 3, 8, 8, 8)
    norm = PlainInstanceNorm()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, full = norm(x.bfloat16()), norm(x)
    assert half.dtype == torch.bfloat16
    assert full.dtype == torch.float32
    torch.testing.assert_close(half.float(), norm(x), atol=0.05, rtol=0.02)  # 8 bits of mantissa
    assert torch.equal(full, norm(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 4}, "spatial_dims must be 2 or 3"),
        ({"in_channels": 0}, "at least 1"),
        ({"out_channels": 1}, "at least 2"),
        ({"channels": (4,)}, "two levels"),
        ({"deep_supervision": 5}, "must lie in"),
    ],
)
def test_ill_arguments(arguments: dict[str, object], message: str) -> None:
    defaults = {"spatial_dims": 3, "in_channels": 2, "out_channels": 2, "channels": (4, 8), "deep_supervision": 0}
    with pytest.raises(ValueError, match=message):
        ModalityUNet(**{**defaults, **arguments})  # type: ignore[arg-type]


def test_ill_input() -> None:
    network = make(3, 2, 2, (4, 8), 0)
    with pytest.raises(ValueError, match="multiple of 2"):
        network(torch.randn(1, 2, 7, 8, 8))
    with pytest.raises(ValueError, match="expected"):
        network(torch.randn(1, 3, 8, 8, 8))
    with pytest.raises(ValueError, match="modality mask has shape"):
        network(torch.randn(2, 2, 8, 8, 8), torch.ones(1, 2, dtype=torch.bool))


def test_background_where_empty_keeps_the_other_rows() -> None:
    logits = torch.randn(2, 3, 4, 4)
    mask = torch.tensor([[True, False], [False, False]])
    result = background_where_empty(logits, mask)
    assert torch.equal(result[0], logits[0])
    assert (result[1].argmax(0) == 0).all()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dense", [False, True])
def test_a_window_may_be_as_small_as_the_stride(batch: int, dense: bool) -> None:
    network = make(3, 2, 3, (4, 8), 0).train()
    with dense_path(dense):
        logits = network(torch.randn(batch, 2, 2, 2, 2))
    assert logits.shape == (batch, 3, 2, 2, 2)
    assert logits.isfinite().all()
