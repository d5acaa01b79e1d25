"""Transformer parts: attention, positions, and fusion tokens against a direct masked transformer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medmap_monai.networks.blocks.fusion_tokens import FusionTokenTransformer
from medmap_monai.networks.blocks.transformer import (
    Attention,
    TransformerLayer,
    grid_sizes,
    resize_positions,
    to_maps,
    to_tokens,
)


def test_positions_keep_their_grid_and_interpolate_linearly() -> None:
    ramp = torch.arange(8.0).reshape(1, 1, 8, 1).expand(1, 8, 8, 1).flatten(1, 2)
    assert resize_positions(ramp, [8, 8], [8, 8]) is ramp
    larger = resize_positions(ramp, [8, 8], [16, 8]).reshape(16, 8)
    torch.testing.assert_close(larger, torch.arange(8.0).expand(16, 8))
    wider = resize_positions(ramp, [8, 8], [8, 16]).reshape(8, 16)
    torch.testing.assert_close(wider[:, 1:-1], (torch.arange(16.0) / 2 - 0.25).expand(8, 16)[:, 1:-1])


def test_token_order_is_c_order() -> None:
    maps = torch.arange(24.0).reshape(1, 2, 3, 4)
    tokens = to_tokens(maps)
    assert torch.equal(tokens[0, :, 0], torch.arange(12.0))
    assert torch.equal(to_maps(tokens, [3, 4]), maps)


@pytest.mark.parametrize("size", [0, [4], [4, 4, 4]])
def test_ill_grids(size: int | list[int]) -> None:
    with pytest.raises(ValueError, match="position_size"):
        grid_sizes(size, 2)


def test_attention_written_out_equals_the_fused_kernel() -> None:
    torch.manual_seed(0)
    attention = Attention(12, 3, 0.1).double().eval()
    q, k, v = torch.randn(3, 2, 5, 12, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True, False]).expand(2, 1, 1, 5)
    weights = attention.weights(q, k, mask)
    torch.testing.assert_close(weights.sum(3), torch.ones(2, 3, 5, dtype=torch.float64))
    torch.testing.assert_close(attention.gather(weights, v), attention.attend(q, k, v, mask))


def test_dropout_acts_in_training_only() -> None:
    layer = TransformerLayer(8, 2, 16, 0.5)
    x = torch.randn(1, 6, 8)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def direct(module: FusionTokenTransformer, deepest: Tensor, mask: Tensor) -> Tensor:
    """All tokens in one sequence under the full attention mask; deepest (1, M, D, H, W), mask (M,)."""
    modalities, count = len(mask), deepest.shape[3:].numel()
    x = torch.cat([*to_tokens(deepest[0]).split(1), module.fusion_tokens], dim=1) + module.positions
    owner = torch.arange(modalities + 1).repeat_interleave(count)
    allowed = owner[:, None] == owner[None]
    allowed[owner == modalities] |= torch.cat([mask, torch.tensor([True])])[owner]
    for layer in module.layers:
        q, k, v = layer.project(x)
        x = layer.attend(x, q, k, v, allowed[None, None])
    return x


@pytest.mark.parametrize("mask", [[True, True, True], [False, True, False], [True, False, True]])
def test_fusion_tokens_equal_one_masked_sequence(mask: list[bool]) -> None:
    torch.manual_seed(0)
    module = FusionTokenTransformer(3, 8, 3, 2, 16, 0.1, [2, 3]).double().eval()
    torch.nn.init.normal_(module.positions)
    deepest = torch.randn(1, 3, 8, 2, 3, dtype=torch.float64)
    rows, present = torch.tensor([0]), torch.tensor([mask])
    prepared = module.prepare(deepest, torch.ones_like(present))
    fusion, attention = module(prepared, present, rows)
    expected = direct(module, deepest, torch.tensor(mask))
    torch.testing.assert_close(to_tokens(fusion)[0], expected[0, 18:])
    torch.testing.assert_close(to_tokens(prepared[0][0]).flatten(0, 1), expected[0, :18])
    assert attention.shape == (1, 3, 1, 2, 3)
    assert not attention[0, ~present[0]].any()
    assert 0 < attention.sum() < 2 * 6  # heads x fusion tokens, less what they give to each other


def test_left_out_modalities_cost_nothing_and_are_zero() -> None:
    module = FusionTokenTransformer(3, 8, 1, 2, 16, 0.0, [2, 2]).eval()
    wanted = torch.tensor([[True, False, False]])
    prepared = module.prepare(torch.randn(1, 3, 8, 2, 2), wanted)
    assert all(not p[~wanted].any() and p[wanted].any() for p in prepared)
