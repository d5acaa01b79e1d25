from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from medmap_monai.losses.temperature_kl import TemperatureKLLoss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "passion_losses.npz")


def golden(key: str) -> Tensor:
    return torch.from_numpy(GOLDEN[key])


@pytest.mark.parametrize("temperature", [4, 1])
@pytest.mark.parametrize(
    ("suffix", "student", "teacher"),
    [
        ("", "logits_s", "logits_t"),
        ("_confident", "logits_s", "logits_t_x5"),  # hits the clamps
        ("_low_up2", "logits_s_low", "logits_t_low"),
    ],
)
def test_values_and_gradients_are_the_published_ones(temperature: int, suffix: str, student: str, teacher: str) -> None:
    loss = TemperatureKLLoss(temperature)
    logits = golden(f"in/{student}").clone().requires_grad_()
    values = loss.rows(logits, loss.target(golden(f"in/{teacher}"), (8, 8, 8)))
    values.mean().backward()
    key = f"out/kl_T{temperature}{suffix}"
    torch.testing.assert_close(values.detach(), golden(f"{key}_bs")[:, 0])
    torch.testing.assert_close(values.detach().mean(), golden(f"{key}_mean").reshape(()))
    assert logits.grad is not None
    norm = golden(f"{key}_mean_gradnorm_wrt_logits_s").reshape(())
    torch.testing.assert_close(logits.grad.norm(), norm, rtol=1e-5, atol=1e-9)


def test_rows_share_one_teacher() -> None:
    loss = TemperatureKLLoss()
    students, teacher = golden("in/logits_s"), golden("in/logits_t")[:1]
    shared = loss.rows(students, loss.target(teacher, (8, 8, 8)))
    alone = torch.stack([loss(s[None], teacher) for s in students])
    torch.testing.assert_close(shared, alone)
    both = loss.target(golden("in/logits_t"), (8, 8, 8)).rows(torch.tensor([1, 0, 1]))
    crossed = loss.rows(students[[0, 0, 1]], both)
    torch.testing.assert_close(crossed[1], loss(students[:1], golden("in/logits_t")[:1]))
    torch.testing.assert_close(crossed[2], loss(students[1:], golden("in/logits_t")[1:]))


def test_without_clamp_and_summed_over_classes_it_is_the_divergence() -> None:
    student, teacher = golden("in/logits_s").double(), golden("in/logits_t_x5").double()
    loss = TemperatureKLLoss(2.0, clamp=None, reduction="sum_class")
    log = (student / 2).log_softmax(1)
    expected = 4 * kl_div(log, (teacher / 2).softmax(1), reduction="sum") / (2 * 8**3)
    torch.testing.assert_close(loss(student, teacher), expected)
    assert loss(student, student).abs() < 1e-12


def test_no_gradient_reaches_the_teacher_and_extreme_logits_stay_finite() -> None:
    teacher = torch.tensor([[[[1e4]], [[-1e4]]]], requires_grad=True)
    student = torch.tensor([[[[-1e4]], [[1e4]]]], requires_grad=True)
    for clamp in (0.005, None):
        value = TemperatureKLLoss(1.0, clamp=clamp)(student, teacher)
        value.backward()
        assert value.isfinite()
        assert teacher.grad is None
        assert student.grad is not None
        assert student.grad.isfinite().all()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        TemperatureKLLoss(0)
    with pytest.raises(ValueError, match="sum_class"):
        TemperatureKLLoss(reduction="sum")
