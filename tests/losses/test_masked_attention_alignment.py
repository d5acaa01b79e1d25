"""MaskedAttentionAlignmentLoss: its formula in both directions, its mask, its gradients."""

from __future__ import annotations

import pytest
import torch

from medmap_monai.losses.masked_attention_alignment import MaskedAttentionAlignmentLoss


def _pair(size: tuple[int, ...] = (2, 2, 3)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 8, *size, generator=generator), torch.randn(3, 8, *size, generator=generator)


def _loss(**options: object) -> MaskedAttentionAlignmentLoss:
    torch.manual_seed(1)
    return MaskedAttentionAlignmentLoss(8, heads=2, **options)  # type: ignore[arg-type]


def _by_hand(loss: MaskedAttentionAlignmentLoss, asking: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Multi-head attention of one row, written out: tokens (N, C) -> (N, C)."""
    query, keys = loss.query_norm(asking), loss.key_norm(asked)
    attention = loss.attention
    q, k, v = (
        (x @ w.T + b).unflatten(1, (2, 4)).transpose(0, 1)
        for x, w, b in zip(
            (query, keys, keys), attention.in_proj_weight.split(8), attention.in_proj_bias.split(8), strict=True
        )
    )
    read = ((q @ k.transpose(1, 2)) / 2.0).softmax(2) @ v  # sqrt(4) = 2
    return attention.out_proj(read.transpose(0, 1).flatten(1))


@pytest.mark.parametrize("size", [(2, 2, 3), (4, 3)])
@pytest.mark.parametrize("query", ["modality", "fused"])
def test_value_equals_the_formula(size, query):
    student, teacher = _pair(size)
    loss = _loss(query=query)
    own, fused = student.flatten(2).transpose(1, 2), teacher.flatten(2).transpose(1, 2)
    for row in range(3):
        asking, asked = (own[row], fused[row]) if query == "modality" else (fused[row], own[row])
        expected = (_by_hand(loss, asking, asked) - fused[row]).square().mean()
        torch.testing.assert_close(loss(student, teacher)[row], expected, rtol=1e-4, atol=1e-6)


def test_a_masked_key_has_no_influence_on_what_is_read():
    student, teacher = _pair()
    loss = _loss(query="fused")  # keys and values from the student, so that only the reading sees them
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[:, 4:] = False
    other = student.clone().flatten(2)
    other[:, :, 4:] += torch.randn(3, 8, 8)
    other = other.unflatten(2, (2, 2, 3))
    torch.testing.assert_close(loss(other, teacher, mask), loss(student, teacher, mask))
    assert not torch.allclose(loss(other, teacher), loss(student, teacher))
    nowhere = torch.zeros_like(mask)  # a row without any key attends to all
    torch.testing.assert_close(loss(student, teacher, nowhere), loss(student, teacher))


def test_zero_when_attention_reproduces_the_fused_features():
    student, _ = _pair()
    flat = torch.arange(8.0).reshape(1, 8, 1, 1, 1).expand(3, 8, 2, 2, 3)  # the same at every position
    loss = _loss()
    with torch.no_grad():  # whatever is read, answer with the one token that there is
        loss.attention.out_proj.weight.zero_()
        loss.attention.out_proj.bias.copy_(torch.arange(8.0))
    assert torch.equal(loss(student, flat), torch.zeros(3))


def test_training_lets_a_modality_copy_the_fused_structure():
    """The definition is not zero for equal features from the start, but it can be learned for them, and only them."""
    torch.manual_seed(0)
    teacher = torch.randn(1, 8, 3, 3)
    reached = {}
    for name, student in (("equal", teacher), ("blind", torch.zeros_like(teacher))):
        loss = _loss()
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
        for _ in range(150):
            optimizer.zero_grad()
            loss(student, teacher).sum().backward()
            optimizer.step()
        reached[name] = float(loss(student, teacher).detach())
    assert reached["equal"] < 0.2 * reached["blind"]


@pytest.mark.parametrize("query", ["modality", "fused"])
@pytest.mark.parametrize("detach", [True, False])
def test_gradients_reach_what_they_should(query, detach):
    student, teacher = _pair()
    student.requires_grad_()
    teacher.requires_grad_()
    loss = _loss(query=query, detach_teacher=detach)
    loss(student, teacher).sum().backward()
    assert student.grad is not None
    assert student.grad.any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())
    assert (teacher.grad is None) == detach


@pytest.mark.parametrize("query", ["modality", "fused"])
def test_finite_for_constant_features_and_one_position(query):
    for student in (torch.zeros(2, 8, 2, 2), torch.full((2, 8, 1, 1), 3.0)):
        student.requires_grad_()
        value = _loss(query=query)(student, torch.zeros_like(student))
        value.sum().backward()
        assert value.isfinite().all()
        assert student.grad is not None
        assert student.grad.isfinite().all()


def test_bad_arguments():
    with pytest.raises(ValueError, match="modality"):
        _loss(query="both")
    with pytest.raises(ValueError, match="multiple of heads"):
        MaskedAttentionAlignmentLoss(6, heads=4)
    with pytest.raises(ValueError, match="differ in shape"):
        _loss()(_pair()[0], _pair((2, 2, 2))[0])
