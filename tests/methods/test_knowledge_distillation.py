"""Knowledge distillation: the teacher's stage and the student's losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from torch import Tensor
from torch.nn.functional import kl_div, mse_loss

from medmap_monai.methods.knowledge_distillation import KnowledgeDistillation, TeacherTraining, bottleneck_distance
from medmap_monai.methods.knowledge_distillation_teacher import TeacherStage
from medmap_monai.methods.medmap import MedMAP
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.early_fusion_unet import EarlyFusionUNet

LOSS = DiceCELoss(to_onehot_y=True, softmax=True)


def network(seed: int = 0, channels: tuple[int, ...] = (4, 4, 8), **kwargs: object) -> AlignedNetwork:
    torch.manual_seed(seed)
    unet = EarlyFusionUNet(3, 4, 3, channels=channels, embedding_channels=2, deep_supervision=1)
    return AlignedNetwork(unet, **kwargs)  # type: ignore[arg-type]


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 4, 8, 8, 8, generator=generator)
    label = torch.randint(0, 3, (2, 1, 8, 8, 8), generator=generator)
    visible = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0]]).bool()
    return image, visible, torch.ones(2, 4, dtype=torch.bool), label


def test_losses_by_hand() -> None:
    image, visible, present, label = batch()
    student, teacher = network(0), network(1)
    method = KnowledgeDistillation(student, teacher, LOSS, distill_weight=0.5, temperature=4.0, bottleneck_weight=0.1)
    method.train()
    losses = method(image, visible, present, label).losses
    teacher.eval()
    seen = teacher.decode(teacher.encode(image, present), present)
    own = student.decode(student.encode(image, visible), visible)
    voxels = label.numel()
    log_s, p_t = (own.logits / 4).log_softmax(1), (seen.logits / 4).softmax(1)
    divergence = 16 * kl_div(log_s, p_t, reduction="sum") / voxels
    torch.testing.assert_close(losses["distill"], 0.5 * divergence, rtol=1e-4, atol=1e-6)
    size = seen.fused[-1].square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()
    torch.testing.assert_close(losses["bottleneck"], 0.1 * mse_loss(own.fused[-1] / size, seen.fused[-1] / size))
    torch.testing.assert_close(losses["fused"], LOSS(own.logits, label))
    assert set(losses) == {"fused", "deep", "distill", "bottleneck"}


def test_only_the_student_learns() -> None:
    method = KnowledgeDistillation(network(0), network(1, levels=[0]), LOSS).train()
    assert not method.teacher.training
    torch.stack(list(method(*batch()).losses.values())).sum().backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for n, p in method.network.named_parameters() if "encoders" not in n)


def test_a_student_equal_to_its_teacher_on_complete_input_has_nothing_to_learn() -> None:
    image, _, present, label = batch()
    method = KnowledgeDistillation(network(0), network(0), LOSS).eval()
    with torch.no_grad():
        losses = method(image, present, present, label).losses
    assert losses["distill"] == pytest.approx(0.0, abs=1e-6)
    assert losses["bottleneck"] == pytest.approx(0.0, abs=1e-10)


def test_teacher_training_sees_everything_whatever_is_hidden() -> None:
    image, visible, present, label = batch()
    method = TeacherTraining(network(), LOSS).train()
    output = method(image, visible, present, label)
    assert torch.equal(output.pred, method(image, present, present, label).pred)
    assert set(output.losses) == {"fused", "deep"}
    aligned = MedMAP(TeacherTraining(network(), LOSS))
    assert set(aligned(image, visible, present, label).losses) == {"fused", "deep", "align"}


def test_a_dedicated_student_sees_its_subset_only() -> None:
    image, visible, present, label = batch()
    subset = [True, False, False, True]
    method = KnowledgeDistillation(network(0), network(1), LOSS, subset=subset).train()
    output = method(image, visible, present, label)
    changed = image.clone()
    changed[:, 1:3] = 7.0
    own = KnowledgeDistillation(network(0), network(1), LOSS, distill_weight=0.0, bottleneck_weight=0.0, subset=subset)
    assert torch.equal(output.pred, own.train()(changed, visible, present, label).pred)
    without = torch.tensor([[False, True, True, False]] * 2)
    with pytest.raises(ValueError, match="none of the modalities"):
        method(image, without, without, label)


def test_a_student_may_be_aligned_as_well() -> None:
    method = MedMAP(KnowledgeDistillation(network(0), network(1), LOSS)).train()
    losses = method(*batch()).losses
    assert {"distill", "align"} <= set(losses)
    torch.stack(list(losses.values())).sum().backward()
    assert method.network.mixture.grad is not None


@pytest.mark.parametrize(
    ("teacher", "kwargs", "message"),
    [
        (lambda: AlignedNetwork(EarlyFusionUNet(3, 3, 3, channels=(4, 8), deep_supervision=0)), {}, "3 modalities"),
        (lambda: network(), {"subset": [True]}, "4 flags"),
        (lambda: network(), {"subset": [False] * 4}, "at least one"),
    ],
)
def test_ill_arguments(teacher: object, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KnowledgeDistillation(network(), teacher(), LOSS, **kwargs)  # type: ignore[operator]


def test_bottleneck_distance_does_not_depend_on_the_size_of_the_features() -> None:
    student, teacher = torch.randn(2, 4, 2, 2, 2), torch.randn(2, 4, 2, 2, 2)
    sizes = torch.tensor([1.0, 30.0]).reshape(2, 1, 1, 1, 1)
    expected = bottleneck_distance([student], [teacher])
    torch.testing.assert_close(bottleneck_distance([sizes * student], [sizes * teacher]), expected)
    silent = bottleneck_distance([torch.zeros_like(student)], [100 * teacher])
    torch.testing.assert_close(silent, torch.tensor(1.0))


def test_bottlenecks_must_fit() -> None:
    method = KnowledgeDistillation(network(), network(channels=(4, 4, 4)), LOSS).train()
    with pytest.raises(ValueError, match="bottleneck shapes differ"):
        method(*batch())
    method.bottleneck_weight = 0.0
    method(*batch())


class Trainer:
    """Stands for the trainer of the first stage: a few real steps on the teacher."""

    def __init__(self, teacher: AlignedNetwork) -> None:
        self.method = MedMAP(TeacherTraining(teacher, LOSS))
        self.runs = 0

    def run(self) -> None:
        assert self.method.network.training
        self.runs += 1
        optimizer = torch.optim.SGD(self.method.parameters(), lr=0.1)
        torch.stack(list(self.method(*batch()).losses.values())).sum().backward()
        optimizer.step()


def test_two_stages_from_one_command_and_the_teacher_is_reused(tmp_path: Path) -> None:
    path = tmp_path / "models" / "teacher.pt"
    teacher = network(1)
    student_method = KnowledgeDistillation(network(0), teacher, LOSS)  # built first: it freezes the teacher
    trainer = Trainer(teacher)
    before = teacher.state_dict()["network.fusion.projection.conv.weight"].clone()
    assert TeacherStage(teacher, trainer.run, path)() is teacher
    after = teacher.state_dict()["network.fusion.projection.conv.weight"]
    assert trainer.runs == 1
    assert not torch.equal(before, after)
    assert not any(p.requires_grad for p in student_method.teacher.parameters())
    assert not teacher.training
    assert [p.name for p in path.parent.iterdir()] == ["teacher.pt"]

    second = network(2)
    again = Trainer(second)
    TeacherStage(second, again.run, path)()
    assert again.runs == 0
    assert all(
        torch.equal(a, b) for a, b in zip(teacher.state_dict().values(), second.state_dict().values(), strict=True)
    )
    TeacherStage(second, again.run, path, reuse=False)()
    assert again.runs == 1


def test_the_student_starts_alike_whether_the_teacher_was_trained_or_found(tmp_path: Path) -> None:
    draws = []
    for _ in range(2):
        teacher = network(1)
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        TeacherStage(teacher, Noisy(teacher).run, tmp_path / "teacher.pt")()
        draws.append((torch.rand(1).item(), np.random.rand()))  # noqa: NPY002
    assert draws[0] == draws[1]


class Noisy(Trainer):
    def run(self) -> None:
        torch.rand(3)
        np.random.rand(3)  # noqa: NPY002
        super().run()


def test_an_interrupted_first_stage_leaves_no_teacher(tmp_path: Path) -> None:
    def fails() -> None:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        TeacherStage(network(), fails, tmp_path / "teacher.pt")()
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(network(channels=(4, 4, 4)).state_dict(), tmp_path / "teacher.pt")
    with pytest.raises(ValueError, match=r"teacher\.pt does not fit"):
        TeacherStage(network(), lambda: None, tmp_path / "teacher.pt")()
