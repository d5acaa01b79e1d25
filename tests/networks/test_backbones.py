"""The network contract of RFNet, mmFormer and M2FTrans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from medmap_monai.networks.base import ModalityFeatures, ModalityNetwork
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer
from medmap_monai.networks.rfnet import RFNet
from tests.networks.backbones import SMALL, random_case, small

NAMES = sorted(SMALL)
SIZE_3D = (16, 8, 16)


def close(a: Tensor, b: Tensor) -> None:
    """Equal up to rounding of float64; instance norm of small maps would amplify that of float32."""
    assert a.dtype == torch.float64
    torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)


PUBLISHED_COUNTS = [
    (RFNet, {}, 2_381_792),
    (MMFormer, {}, 35_599_184),
    (M2FTrans, {}, 13_194_788),
    (RFNet, {"variant": "original"}, 8_984_960),
    (MMFormer, {"variant": "original"}, 36_654_416),
]


@pytest.mark.parametrize(("network", "kwargs", "count"), PUBLISHED_COUNTS)
def test_parameter_counts_are_the_published_ones(
    network: Callable[..., ModalityNetwork], kwargs: dict[str, Any], count: int
) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in network(**kwargs).parameters()) == count


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("spatial_dims", "modalities", "classes", "size"),
    [(3, 4, 4, SIZE_3D), (3, 1, 2, (8, 8, 8)), (3, 5, 3, (8, 12, 8)), (2, 2, 3, (16, 24)), (2, 3, 2, (20, 8))],
)
def test_any_modalities_classes_dimensions_and_sizes(
    name: str, spatial_dims: int, modalities: int, classes: int, size: tuple[int, ...]
) -> None:
    network = small(name, spatial_dims=spatial_dims, in_channels=modalities, out_channels=classes)
    image, mask = random_case(2, modalities, size)
    with torch.no_grad():
        features = network.encode(image, mask)
        output = network.decode(features, mask)
        logits = network(image, mask)
    assert logits.shape == (2, classes, *size)
    assert torch.isfinite(logits).all()
    close(output.logits, logits)
    for level, maps in enumerate(features.pyramid):
        assert list(maps.shape[3:]) == [n // 2**level for n in size]
        assert not maps[~mask].any()
    assert list(output.features[0].shape[2:]) == list(size)
    sizes = [d.shape[2] for d in output.deep_logits]
    assert sizes == sorted(sizes, reverse=True)
    assert len(output.fused) == len(features.pyramid)
    assert all(d.shape[1] == classes for d in output.deep_logits)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(4, 4, 4), (4, 8, 4)])
def test_deepest_map_may_be_one_voxel_wide(name: str, size: tuple[int, ...]) -> None:
    network = small(name)
    image, mask = random_case(1, 4, size)
    assert torch.isfinite(network(image, mask)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mask", [[True, False, True, False], [False, False, False, True], [True, True, False, True]])
def test_absent_channels_have_no_influence_at_all(name: str, mask: list[bool]) -> None:
    network = small(name)
    image, _ = random_case(1, 4, SIZE_3D)
    rows = torch.tensor([mask])
    expected = network(image, rows)
    for junk in (0.0, float("nan"), float("inf"), 1e30):
        changed = image.clone()
        changed[:, ~rows[0]] = junk
        assert torch.equal(network(changed, rows), expected)
        features = network.encode(changed, rows)
        assert torch.equal(network.decode(features, rows).logits, expected)


@pytest.mark.parametrize("name", NAMES)
def test_features_of_hidden_modalities_have_no_influence(name: str) -> None:
    network = small(name)
    image, mask = random_case(2, 4, SIZE_3D)
    features = network.encode(image, torch.ones_like(mask))
    expected = network.decode(features, mask).logits
    for junk in (0.0, float("nan")):
        pyramid = [level.clone() for level in features.pyramid]
        for level in pyramid:
            level[~mask] = junk
        tokens = features.tokens
        if tokens is not None:
            tokens = tokens.clone()
            tokens[~mask] = junk
        changed = ModalityFeatures(pyramid, tokens)
        close(network.decode(changed, mask).logits, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    network = small(name)
    image, mask = random_case(3, 4, SIZE_3D)
    together = network(image, mask)
    for row in range(3):
        close(together[row : row + 1], network(image[row : row + 1], mask[row : row + 1]))


@pytest.mark.parametrize("name", NAMES)
def test_without_a_mask_zero_channels_are_absent(name: str) -> None:
    network = small(name)
    image, mask = random_case(2, 4, SIZE_3D)
    image[~mask] = 0
    close(network(image), network(image, mask))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("train", [False, True])
def test_a_row_without_modalities_is_background(name: str, train: bool) -> None:
    network = small(name, dropout_rate=0.0) if name != "rfnet" else small(name)
    network.train(train)
    image, _ = random_case(2, 4, SIZE_3D)
    mask = torch.tensor([[False] * 4, [True, False, True, True]])
    logits = network(image, mask)
    assert torch.isfinite(logits).all()
    assert (logits[0].argmax(0) == 0).all()
    close(logits[1:], network(image[1:], mask[1:]))
    assert (network(image, torch.zeros_like(mask)).argmax(1) == 0).all()
    logits.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_prepared_features_decode_alike(name: str) -> None:
    network = small(name)
    image, mask = random_case(2, 4, SIZE_3D)
    features = network.encode(image, mask)
    prepared = network.prepare(features)
    close(network.decode(prepared, mask).logits, network.decode(features, mask).logits)
    for level in (0, -1):
        changed = prepared.with_level(level, prepared.at(level) * 1.5)
        fresh = ModalityFeatures(changed.pyramid, changed.tokens, changed.present)
        close(network.decode(changed, mask).logits, network.decode(fresh, mask).logits)
        assert (network.decode(changed, mask).logits - network.decode(prepared, mask).logits).abs().max() > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_may_allow_what_is_absent(name: str) -> None:
    network = small(name)
    image, _ = random_case(2, 4, SIZE_3D)
    features = network.encode(image, torch.tensor([[True, False, False, True]] * 2))
    for given in (features, network.prepare(features)):
        assert network.decode(given, torch.tensor([[True, True, False, True]] * 2)).logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_students_equal_the_fused_path_that_sees_their_modality_alone(name: str) -> None:
    network = small(name)
    image, mask = random_case(2, 4, SIZE_3D)
    features = network.prepare(network.encode(image, mask))
    sample, modality = torch.nonzero(mask, as_tuple=True)
    one_hot = torch.nn.functional.one_hot(modality, 4).bool()
    students = network.decode_student(features, sample, modality, mask)
    assert students.logits.shape[0] == len(sample)
    for row in range(len(sample)):
        alone = network(image[sample[row] :][:1], one_hot[row : row + 1])
        close(students.logits[row : row + 1], alone)


@pytest.mark.parametrize("name", NAMES)
def test_masks_per_level(name: str) -> None:
    network = small(name)
    image, mask = random_case(2, 4, SIZE_3D)
    features = network.encode(image, torch.ones_like(mask))
    levels = mask[:, None].repeat(1, len(features.pyramid), 1)
    expected = network.decode(features, mask).logits
    close(network.decode(features, levels).logits, expected)
    levels[:, 0] = True  # the finest level sees everything
    assert (network.decode(features, levels).logits - expected).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_unimodal_decoder_gives_logits_per_pair(name: str) -> None:
    network = small(name)
    assert network.has_unimodal_decoder
    image, mask = random_case(2, 4, SIZE_3D)
    features = network.encode(image, mask)
    sample, modality = torch.nonzero(mask, as_tuple=True)
    logits = network.decode_unimodal(features, sample, modality)
    assert logits.shape == (len(sample), 4, *SIZE_3D)
    again = network.decode_unimodal(network.encode(image[1:], mask[1:]), sample[-1:] * 0, modality[-1:])
    close(logits[-1:], again)


@pytest.mark.parametrize("name", NAMES)
def test_torchscript_equals_eager(name: str) -> None:
    network = small(name)
    image, mask = random_case(2, 4, (8, 8, 8))
    scripted = torch.jit.script(network)
    with torch.no_grad(), torch.jit.optimized_execution(False):
        close(scripted(image, mask), network(image, mask))
        close(scripted(image), network(image, torch.ones_like(mask)))
        close(scripted(image[:1, :, :, :4], mask[:1]), network(image[:1, :, :, :4], mask[:1]))


@pytest.mark.parametrize("name", NAMES)
def test_trace_equals_eager_for_other_masks(name: str) -> None:
    network = small(name)
    image, mask = random_case(2, 4, (8, 8, 8))
    with torch.no_grad():
        traced = torch.jit.trace(network, (image, torch.ones_like(mask)), check_trace=False)
        close(traced(image, mask), network(image, mask))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_is_finite_and_near(name: str) -> None:
    network = small(name).float().train()
    image, mask = random_case(2, 4, SIZE_3D)
    image = image.float()
    with torch.autocast("cpu", torch.bfloat16):
        features = network.prepare(network.encode(image, mask))
        output = network.decode(features, mask)
        sample, modality = torch.nonzero(mask, as_tuple=True)
        students = network.decode_student(features, sample, modality, mask)
        unimodal = network.decode_unimodal(features, sample, modality)
    (output.logits.float().square().mean() + students.logits.float().mean() + unimodal.float().mean()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())
    network.eval()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(image, mask).float()
    assert torch.isfinite(logits).all()
    exact = network(image, mask)
    assert (logits - exact).abs().mean() < 0.2 * exact.abs().mean()
    assert (logits.argmax(1) == exact.argmax(1)).float().mean() > 0.9


def test_mmformer_published_student_quirks() -> None:
    image, _ = random_case(1, 4, (8, 8, 8))
    everything, visible = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[True, True, True, False]])
    sample, modality = torch.zeros(4, dtype=torch.int64), torch.arange(4)
    one_hot = torch.eye(4, dtype=torch.bool)

    def by_hand(network: ModalityNetwork, tokens: torch.Tensor) -> torch.Tensor:
        return network.decode(network.encode(image, everything), torch.stack([one_hot, one_hot, tokens], 1), sample)[0]

    def students(network: ModalityNetwork) -> torch.Tensor:
        return network.decode_student(network.encode(image, everything), sample, modality, visible)[0]

    fixed, buggy = small("mmformer"), small("mmformer", variant="passion-published")
    close(students(fixed), by_hand(fixed, one_hot & visible))  # a hidden modality has no tokens, as published
    third = (one_hot & visible).clone()
    third[3] = torch.tensor([False, False, True, False])
    close(students(buggy), by_hand(buggy, third))
    assert (students(buggy)[3] - students(fixed)[3]).abs().max() > 1e-6


def test_original_mmformer_keeps_its_unused_weights_out_of_training() -> None:
    network = small("mmformer", variant="original")
    unused = {key for key, p in network.named_parameters() if not p.requires_grad}
    assert unused == {f"unused.{m}.conv.{p}" for m in range(4) for p in ("weight", "bias")}


BAD_ARGUMENTS = [
    ("rfnet", {"variant": "best"}, "original"),
    ("mmformer", {"variant": "best"}, "original"),
    ("m2ftrans", {"variant": "original"}, "passion"),
    ("rfnet", {"base_width": 3}, "base_width must be even"),
    ("rfnet", {"levels": 1}, "levels must be at least 2"),
    ("mmformer", {"levels": 1}, "levels must be at least 2"),
    ("m2ftrans", {"levels": 2}, "levels must be at least 3"),
    ("mmformer", {"heads": 3}, "multiple of heads = 3"),
    ("mmformer", {"position_size": [4, 4]}, "position_size"),
    ("m2ftrans", {"transformer_layers": 0}, "transformer_layers"),
    ("mmformer", {"in_channels": 3, "variant": "passion-published"}, "4-modality"),
    ("rfnet", {"in_channels": 0}, "in_channels"),
    ("m2ftrans", {"spatial_dims": 4}, "spatial_dims"),
]


@pytest.mark.parametrize(("name", "kwargs", "message"), BAD_ARGUMENTS)
def test_ill_arguments(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL[name](**kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_ill_images(name: str) -> None:
    network = small(name)
    with pytest.raises(ValueError, match="multiple of 4"):
        network(torch.rand(1, 4, 8, 8, 6))
    with pytest.raises(ValueError, match="expected"):
        network(torch.rand(1, 3, 8, 8, 8))
    with pytest.raises(ValueError, match="modality mask"):
        network(torch.rand(2, 4, 8, 8, 8), torch.ones(1, 4, dtype=torch.bool))
