"""PrototypeAlignmentLoss: its formula, absent classes, tiny lesions, its gradients."""

from __future__ import annotations

import pytest
import torch

from medmap_monai.losses.prototype_alignment import PrototypeAlignmentLoss


def _pair(size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 5, *size, generator=generator), torch.randn(3, 5, *size, generator=generator)


def _label(size: tuple[int, ...]) -> torch.Tensor:
    """Classes 0 and 2 everywhere, 1 in the second sample only, 3 nowhere."""
    label = 2 * torch.randint(0, 2, (3, 1, *size), generator=torch.Generator().manual_seed(2))
    label[1, :, :3] = 1
    return label


@pytest.mark.parametrize(("size", "full"), [((2, 3, 2), (4, 6, 4)), ((3, 4), (9, 8))])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_value_equals_the_formula(size, full, metric):
    student, teacher = _pair(size)
    label = _label(full)
    loss = PrototypeAlignmentLoss(metric=metric)
    areas = loss.class_areas(label, 4, size)
    value = loss(student, teacher, areas)
    for row in range(3):
        terms = []
        for c in range(4):
            y = areas[row, c]
            if y.sum() == 0:
                continue
            own, fused = ((x[row] * y).flatten(1).sum(1) / (y.sum() + 1e-5) for x in (student, teacher))
            if metric == "l2":
                terms.append((own - fused).square().mean())
            else:
                terms.append(1 - own @ fused / (own.norm() * fused.norm()))
        assert len(terms) == (3 if row == 1 else 2)
        torch.testing.assert_close(value[row], torch.stack(terms).mean())


@pytest.mark.parametrize("labels", ["soft", "nearest"])
def test_areas_are_shares_of_each_deep_voxel(labels):
    label = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    label[0, 0, 0, 0] = 2  # one voxel of four in the first deep voxel
    label[0, 0, 2:, 2:] = 1
    areas = PrototypeAlignmentLoss(labels=labels).class_areas(label, 3, (2, 2))
    torch.testing.assert_close(areas.sum(1), torch.ones(1, 2, 2))
    assert torch.equal(areas[0, 1], torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    assert areas[0, 2, 0, 0] == (0.25 if labels == "soft" else 0.0)  # nearest loses the small lesion


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_zero_when_features_agree(metric):
    student, teacher = _pair((2, 3))
    loss = PrototypeAlignmentLoss(metric=metric)
    areas = loss.class_areas(_label((4, 6)), 4, (2, 3))
    torch.testing.assert_close(loss(student, student, areas), torch.zeros(3), atol=1e-6, rtol=0)
    assert (loss(student, teacher, areas) > 1e-3).all()


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_absent_classes_play_no_part(metric):
    student, teacher = _pair((2, 3))
    loss = PrototypeAlignmentLoss(metric=metric)
    label = _label((4, 6))
    narrow, wide = loss.class_areas(label, 3, (2, 3)), loss.class_areas(label, 7, (2, 3))
    torch.testing.assert_close(loss(student, teacher, narrow), loss(student, teacher, wide))
    nothing = torch.zeros_like(narrow)
    student.requires_grad_()
    value = loss(student, teacher, nothing)
    value.sum().backward()
    assert torch.equal(value.detach(), torch.zeros(3))
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_threshold_leaves_out_small_classes():
    student, teacher = _pair((2, 2))
    label = torch.zeros(3, 1, 4, 4, dtype=torch.int64)
    label[:, :, 0, 0] = 1
    areas = PrototypeAlignmentLoss().class_areas(label, 2, (2, 2))
    background = PrototypeAlignmentLoss()(student, teacher, torch.stack([areas[:, 0], 0 * areas[:, 1]], 1))
    torch.testing.assert_close(PrototypeAlignmentLoss(threshold=0.5)(student, teacher, areas), background)
    assert not torch.allclose(PrototypeAlignmentLoss(threshold=0.2)(student, teacher, areas), background)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_gradients_reach_what_they_should(detach, metric):
    student, teacher = (x.requires_grad_() for x in _pair((2, 3)))
    loss = PrototypeAlignmentLoss(metric=metric, detach_teacher=detach)
    loss(student, teacher, loss.class_areas(_label((4, 6)), 4, (2, 3))).sum().backward()
    assert student.grad is not None
    assert student.grad.any()
    assert student.grad.isfinite().all()
    assert (teacher.grad is None) == detach


def test_bad_arguments():
    loss = PrototypeAlignmentLoss()
    with pytest.raises(ValueError, match="nearest"):
        PrototypeAlignmentLoss(labels="hard")
    with pytest.raises(ValueError, match="cosine"):
        PrototypeAlignmentLoss(metric="l1")
    with pytest.raises(ValueError, match=r"classes 0\.\.2"):
        loss.class_areas(_label((4, 6)), 2, (2, 3))
    with pytest.raises(ValueError, match="fit each other"):
        loss(*_pair((2, 3)), torch.ones(3, 4, 3, 3))
