from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medmap_monai.losses.label_maps import label_maps
from medmap_monai.losses.prototype import PrototypeLoss, similarity_maps

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "passion_losses.npz")


def golden(key: str) -> Tensor:
    return torch.from_numpy(GOLDEN[key])


def label_of(case: str) -> Tensor:
    return golden(f"in/labels_{case}")[:, None]


@pytest.mark.parametrize("case", ["all", "absent3_all", "absent3_one", "background_only"])
def test_values_and_gradients_are_the_published_ones(case: str) -> None:
    student = golden("in/features_s").clone().requires_grad_()
    loss = PrototypeLoss(shared_classes=True)
    values, distances = loss(student, golden("in/features_t"), label_of(case), 4)
    values.sum().backward()
    torch.testing.assert_close(values.detach(), golden(f"out/{case}/proto_bs")[:, 0])
    torch.testing.assert_close(values.detach().mean(), golden(f"out/{case}/proto_mean").reshape(()))
    torch.testing.assert_close(distances, golden(f"out/{case}/dist_bs")[:, 0])
    torch.testing.assert_close(distances.mean(), golden(f"out/{case}/dist_mean").reshape(()))
    assert student.grad is not None
    norm = golden(f"out/{case}/proto_bs_gradnorm_wrt_features_s").reshape(())
    torch.testing.assert_close(student.grad.norm(), norm, rtol=1e-5, atol=1e-9)


def test_by_default_a_sample_does_not_depend_on_its_batch_mates() -> None:
    arguments = golden("in/features_s"), golden("in/features_t"), label_of("absent3_one")
    values, distances = PrototypeLoss()(*arguments, 4)
    torch.testing.assert_close(values, golden("out/absent3_one/proto_bs_singly")[:, 0])
    torch.testing.assert_close(distances, golden("out/absent3_one/dist_bs_singly")[:, 0])
    coupled, _ = PrototypeLoss(shared_classes=True)(*arguments, 4)
    assert (coupled - values).abs().max() > 1e-3


def test_zero_and_equal_students() -> None:
    teacher, label = golden("in/features_t"), label_of("all")
    student = torch.zeros_like(teacher).requires_grad_()
    values, distances = PrototypeLoss()(student, teacher, label, 4)
    torch.testing.assert_close(values.detach(), golden("out/all/proto_bs_zero_student")[:, 0])
    torch.testing.assert_close(distances, golden("out/all/dist_bs_zero_student")[:, 0])
    values.sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    equal = teacher.clone().requires_grad_()
    values, distances = PrototypeLoss()(equal, teacher, label, 4)
    values.sum().backward()
    assert torch.equal(values.detach(), golden("out/all/proto_bs_equal")[:, 0])
    assert torch.equal(distances, golden("out/all/dist_bs_equal")[:, 0])
    assert equal.grad is not None
    assert equal.grad.abs().max() == 0


def test_l2_distance_is_the_root_of_the_loss_and_carries_no_gradient() -> None:
    student = golden("in/features_s").clone().requires_grad_()
    values, distances = PrototypeLoss(distance="l2")(student, golden("in/features_t"), label_of("all"), 4)
    torch.testing.assert_close(distances, values.detach().sqrt())
    assert values.requires_grad
    assert not distances.requires_grad


def test_gradient_reaches_the_student_through_map_and_prototype_and_never_the_teacher() -> None:
    features = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    teacher = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    label = (torch.arange(36).reshape(1, 1, 6, 6) > 17).long()

    def value(x: Tensor) -> Tensor:
        return PrototypeLoss()(x, teacher, label, 2)[0]

    assert torch.autograd.gradcheck(value, (features,))
    value(features).sum().backward()
    assert teacher.grad is None


def test_similarity_maps_are_the_cosine_with_the_class_mean() -> None:
    features, label = golden("in/features_s"), label_of("absent3_all")
    maps = similarity_maps(features, label_maps(label, 4))
    x, y = features[1].flatten(1), label[1].flatten()
    for c in range(3):
        mean = x[:, y == c].mean(1)
        expected = torch.cosine_similarity(x, mean[:, None], dim=0)
        torch.testing.assert_close(maps[1, c], expected, atol=1e-5, rtol=0)
    assert maps[:, 3].abs().max() == 0


def test_unknown_distance_lists_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="l1"):
        PrototypeLoss(distance="l3")
