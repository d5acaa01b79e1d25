"""CovarianceConsistencyLoss: its formula, its zeros, its gradients."""

from __future__ import annotations

import pytest
import torch

from medmap_monai.losses.covariance_consistency import CovarianceConsistencyLoss, channel_covariance

FORMS = ["mse", "coral", "corr"]


def _pair(size: tuple[int, ...] = (3, 2, 4), rows: int = 3, channels: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(rows, channels, *size, generator=generator),
        torch.randn(rows, channels, *size, generator=generator),
    )


@pytest.mark.parametrize("size", [(3, 2, 4), (5, 3)])
def test_covariance_equals_torch(size):
    features, _ = _pair(size)
    expected = torch.stack([torch.cov(row.flatten(1)) for row in features])
    torch.testing.assert_close(channel_covariance(features), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("linear", ["shared", "per_modality"])
def test_value_equals_the_formula_with_every_position_mapped(form, linear):
    student, teacher = _pair()
    modality = torch.tensor([1, 0, 1])
    loss = CovarianceConsistencyLoss(4, modalities=2, form=form, linear=linear)
    with torch.no_grad():
        loss.weight.copy_(torch.randn_like(loss.weight))
    for row in range(3):
        weight = loss.weight[modality[row] if linear == "per_modality" else 0]
        mapped, fused = weight @ student[row].flatten(1), teacher[row].flatten(1)
        if form == "corr":
            difference = torch.corrcoef(mapped) - torch.corrcoef(fused)
        else:
            difference = torch.cov(mapped) - torch.cov(fused)
        expected = difference.square().sum() / (4 * 16 if form == "coral" else 16)
        torch.testing.assert_close(loss(student, teacher, modality)[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_zero_when_features_agree(form):
    student, teacher = _pair()
    loss = CovarianceConsistencyLoss(4, form=form)
    assert torch.equal(loss(student, student), torch.zeros(3))
    assert (loss(student, teacher) > 1e-3).all()
    # a shift of a channel and a permutation of the positions change no covariance
    shifted = student.flatten(2)[:, :, torch.randperm(24)].unflatten(2, (3, 2, 4)) + 5.0
    torch.testing.assert_close(loss(shifted, student), torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("content", ["constant", "zero", "one position"])
def test_finite_with_gradients_where_nothing_varies(form, content):
    student, teacher = _pair((1, 1, 1) if content == "one position" else (3, 2, 4))
    if content != "one position":
        student = torch.full_like(student, 0.0 if content == "zero" else 2.0)
    student.requires_grad_()
    loss = CovarianceConsistencyLoss(4, form=form)
    value = loss(student, teacher)
    value.sum().backward()
    assert value.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert loss.weight.grad is not None
    assert loss.weight.grad.isfinite().all()
    if content == "one position":
        assert torch.equal(value.detach(), torch.zeros(3))


@pytest.mark.parametrize("detach", [True, False])
def test_gradients_reach_what_they_should(detach):
    student, teacher = _pair()
    student.requires_grad_()
    teacher.requires_grad_()
    loss = CovarianceConsistencyLoss(4, detach_teacher=detach)
    loss(student, teacher).sum().backward()
    assert student.grad is not None
    assert student.grad.any()
    assert loss.weight.grad is not None
    assert loss.weight.grad.any()
    assert (teacher.grad is None) == detach


def test_half_precision_features_are_summed_in_full_precision():
    student, teacher = _pair()
    expected = CovarianceConsistencyLoss(4)(300 * student, 300 * teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = CovarianceConsistencyLoss(4)((300 * student).half(), (300 * teacher).half())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=1e-2, atol=0)


def test_bad_arguments():
    with pytest.raises(ValueError, match="coral"):
        CovarianceConsistencyLoss(4, form="frobenius")
    with pytest.raises(ValueError, match="number of modalities"):
        CovarianceConsistencyLoss(4, linear="per_modality")
    with pytest.raises(ValueError, match="modality of every row"):
        CovarianceConsistencyLoss(4, modalities=2, linear="per_modality")(*_pair())
    with pytest.raises(ValueError, match="differ in shape"):
        CovarianceConsistencyLoss(4)(_pair()[0], _pair((2, 2, 2))[0])
