"""DMAFFusion: the properties of masked attention fusion, in both dimensions and for every option."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch

from medmap_monai.networks.blocks.dmaf import DMAFFusion, area_pool

OPTIONS = [
    {},
    {"attention": "sigmoid"},
    {"per_channel": False},
    {"restore": "subvoxel", "scale": 2},
    {"restore": "subvoxel", "scale": 3, "per_channel": False, "attention": "sigmoid"},
    {"tokens": 1},
    {"tokens": 7, "depth": 1, "heads": 2, "mlp_ratio": 2, "dropout": 0.0},
]
SHAPES = [(4, (6, 4, 5)), (3, (8, 6)), (2, (1, 1, 3)), (5, (7, 9))]


def _fusion(modalities: int, size: tuple[int, ...], seed: int = 0, **options: object) -> DMAFFusion:
    torch.manual_seed(seed)
    kwargs = {"tokens": 3, "depth": 2, **options}
    fusion = DMAFFusion(len(size), modalities, 8, **kwargs).eval()  # type: ignore[arg-type]
    with torch.no_grad():  # far from the initial near-uniform weights, so that the tests can tell weights apart
        for parameter in fusion.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return fusion


def _features(modalities: int, size: tuple[int, ...], rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, modalities, 8, *size, generator=torch.Generator().manual_seed(1))


def _masks(modalities: int) -> torch.Tensor:
    """All, all but the first, two, one."""
    mask = torch.ones(4, modalities, dtype=torch.bool)
    mask[1, 0] = False
    mask[2, 2:] = False
    mask[3] = False
    mask[3, modalities - 1] = True
    return mask


def _weights(fusion: DMAFFusion, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    columns = torch.arange(mask.shape[1])
    return fusion.weights(fusion.project(features), mask, columns, list(features.shape[3:]))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("modalities", "size"), SHAPES)
def test_weights_sum_to_one_and_are_zero_for_absent(modalities, size, options):
    fusion, features, mask = _fusion(modalities, size, **options), _features(modalities, size), _masks(modalities)
    weights = _weights(fusion, features, mask)
    assert weights.shape == (4, modalities, 8 if options.get("per_channel", True) else 1, *size)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))
    assert torch.equal(weights[~mask], torch.zeros_like(weights[~mask]))
    assert (weights[mask] > 0).all()
    if modalities > 2:
        assert weights[0].std() > 1e-3  # and they are no constants


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("modalities", "size"), SHAPES)
def test_fused_is_the_weighted_sum_of_what_is_present(modalities, size, options):
    fusion, features, mask = _fusion(modalities, size, **options), _features(modalities, size), _masks(modalities)
    fused = fusion(features, mask)
    torch.testing.assert_close(fused, (_weights(fusion, features, mask) * features).sum(1), rtol=1e-4, atol=1e-5)
    assert torch.equal(fused[3], features[3, modalities - 1])  # a single modality, bit by bit
    for content in (float("nan"), float("inf"), 1e30):
        spoiled = torch.where(mask.reshape(4, modalities, *[1] * (len(size) + 1)), features, torch.tensor(content))
        assert torch.equal(fusion(spoiled, mask), fused)


@pytest.mark.parametrize("training", [False, True])
def test_rows_of_one_modality_and_of_none(training):
    fusion, features = _fusion(3, (4, 4), dropout=0.0).train(training), _features(3, (4, 4))
    mask = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]).bool()
    fused = fusion(features, mask)
    expected = torch.stack([features[0, 0], features[1, 2], torch.zeros_like(features[2, 0]), features[3, 1]])
    assert torch.equal(fused, expected)
    mask[3] = True  # the same rows beside one that does need attention
    assert torch.equal(fusion(features, mask)[:3], expected[:3])


def test_a_row_does_not_depend_on_its_batch():
    fusion, features, mask = _fusion(4, (4, 4, 4)), _features(4, (4, 4, 4)), _masks(4)
    fused = fusion(features, mask)
    for row in range(4):
        alone = fusion(features[row : row + 1], mask[row : row + 1])[0]
        torch.testing.assert_close(alone, fused[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_permuting_modalities_with_their_embedding_changes_nothing(options):
    fusion, features, mask = _fusion(4, (6, 4, 5), **options), _features(4, (6, 4, 5)), _masks(4)
    fused, order = fusion(features, mask), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        fusion.modality_embedding.copy_(fusion.modality_embedding[order])
    torch.testing.assert_close(fusion(features[:, order], mask[:, order]), fused, rtol=1e-4, atol=1e-4)


def test_modalities_are_told_apart_by_their_embedding_only():
    fusion = _fusion(2, (4, 4))
    same = _features(1, (4, 4)).expand(-1, 2, -1, -1, -1)
    mask = torch.ones(4, 2, dtype=torch.bool)
    assert (_weights(fusion, same, mask) - 0.5).abs().max() > 1e-3
    with torch.no_grad():
        fusion.modality_embedding.zero_()
    torch.testing.assert_close(_weights(fusion, same, mask), torch.full((4, 2, 8, 4, 4), 0.5))


def test_weights_listen_to_other_modalities_and_places():
    fusion, features = _fusion(3, (6, 6)), _features(3, (6, 6), rows=1)
    mask = torch.ones(1, 3, dtype=torch.bool)
    other = features.clone()
    other[:, 2, :4, :2, :2] += 3.0  # one corner of one modality (half of the channels: a norm would not see all)
    change = (_weights(fusion, other, mask) - _weights(fusion, features, mask)).abs()
    assert change[0, 0, :, 4:, 4:].max() > 1e-4  # moves the opposite corner of another


def test_projected_features_may_be_given():
    fusion, features, mask = _fusion(4, (6, 4, 5)), _features(4, (6, 4, 5)), _masks(4)
    assert torch.equal(fusion(features, mask, fusion.project(features)), fusion(features, mask))


@pytest.mark.parametrize("size", [(5, 5, 5), (10, 7, 3), (2, 9)])
@pytest.mark.parametrize("grid", [1, 2, 3])
def test_area_pool_equals_adaptive_average_pooling(size, grid):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    wanted = [min(grid, n) for n in size]
    pool = torch.nn.AdaptiveAvgPool3d if len(size) == 3 else torch.nn.AdaptiveAvgPool2d
    torch.testing.assert_close(area_pool(x, wanted), pool(tuple(wanted))(x))


def test_attention_over_absent_tokens_equals_attention_without_them():
    """A modality that a row lacks is no key for anybody: the same as a fusion that never had it."""
    fusion, features = _fusion(4, (6, 6)), _features(4, (6, 6))
    mask = torch.tensor([[1, 0, 1, 1]] * 3 + [[1, 1, 1, 1]]).bool()  # the last row keeps all columns in
    kept = torch.tensor([0, 2, 3])
    alone = fusion.weights(fusion.project(features)[:, kept], mask[:, kept], kept, [6, 6])
    weights = _weights(fusion, features, mask)
    torch.testing.assert_close(weights[:3][:, kept], alone[:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [[[1, 1, 0], [1, 1, 1]], [[1, 0, 0], [0, 1, 0]]])
def test_gradients_of_the_attention(rows):
    fusion = _fusion(3, (4, 4)).train()
    features = _features(3, (4, 4), rows=2).requires_grad_()
    fusion(features, torch.tensor(rows).bool()).square().sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    # single modalities leave the attention alone; Method.forward ties what a step does not use
    several = sum(rows[0]) > 1
    assert all((p.grad is not None) == several for p in fusion.parameters())
    assert not several or all(bool(p.grad.isfinite().all()) for p in fusion.parameters())
    assert not several or any(bool(p.grad.any()) for p in fusion.parameters())


@pytest.mark.parametrize("options", [{}, {"restore": "subvoxel", "scale": 3, "attention": "sigmoid"}])
def test_gradients_with_absent_nan_are_finite(options):
    fusion, mask = _fusion(4, (6, 4, 5), **options).train(), _masks(4)
    features = _features(4, (6, 4, 5))
    features[~mask] = float("nan")
    features.requires_grad_()
    fusion(features, mask).square().sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert torch.equal(features.grad[~mask], torch.zeros_like(features.grad[~mask]))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fusion.parameters())


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("size", [(6, 4, 5), (8, 6)])
def test_script_and_trace_equal_eager(size, options):
    fusion, features, mask = _fusion(4, size, **options), _features(4, size), _masks(4)
    mask[3] = False  # nothing at all
    eager = fusion(features, mask)
    scripted = torch.jit.script(fusion)
    torch.testing.assert_close(scripted(features, mask), eager)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer points at shapes that it freezes
        traced = torch.jit.trace(fusion, (features, torch.ones_like(mask)))
    torch.testing.assert_close(traced(features, mask), eager, rtol=1e-4, atol=1e-5)
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)


def test_onnx_equals_eager(tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    options = {**OPTIONS[4], "depth": 1}
    fusion, features, mask = _fusion(4, (8, 6), **options), _features(4, (8, 6)), _masks(4)
    path = tmp_path / "fusion.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(fusion, (features, mask), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path)
    inputs = {i.name: v.numpy() for i, v in zip(session.get_inputs(), (features, mask), strict=True)}
    np.testing.assert_allclose(session.run(None, inputs)[0], fusion(features, mask).detach(), rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_is_finite():
    fusion, features, mask = _fusion(4, (6, 4, 5)), _features(4, (6, 4, 5)), _masks(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused = fusion(features, mask)
    torch.testing.assert_close(fused.float(), fusion(features, mask), rtol=0.1, atol=0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3"),
        ({"channels": 6}, "multiple of heads"),
        ({"tokens": 0}, "at least 1"),
        ({"depth": 0}, "at least 1"),
        ({"restore": "nearest"}, "trilinear"),
        ({"attention": "hard"}, "softmax"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DMAFFusion(**{"spatial_dims": 3, "modalities": 4, "channels": 8, **arguments})
