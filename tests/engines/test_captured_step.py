"""Recorded steps equal eager ones, and what cannot be recorded is not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medmap_monai.engines.captured_step import CapturedStep, StepResult
from medmap_monai.engines.mask_decisions import DataDecisionError, MaskDecisions
from medmap_monai.losses.segmentation import WeightedCEDiceLoss
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.methods.dmaf import DMAF
from medmap_monai.methods.medmap import MedMAP
from medmap_monai.methods.passion import Passion
from medmap_monai.methods.students import StudentMode
from medmap_monai.methods.subset_students import SubsetStudents
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.unet import ModalityUNet
from tests.engines.training import tiny_trainer
from tests.networks.backbones import small

SIZE = (16, 16)
MASKS = [(True, True, True, True), (True, False, True, False), (False, False, True, False)]


class Rerun:
    """Stands in for CUDA graphs: a replay does the recorded calls again, on the same memory, and asks nothing."""

    def __init__(self, method: nn.Module) -> None:
        self.method = method

    def __call__(self, run: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        state = [(tensor, tensor.clone()) for tensor in self.method.buffers()]
        random = torch.get_rng_state()
        result = run()
        for tensor, value in state:  # a GPU records without computing
            tensor.copy_(value)
        torch.set_rng_state(random)

        def replay() -> None:
            for old, new in zip(_tensors(result[0]), _tensors(run()[0]), strict=True):
                old.copy_(new)

        return result, replay


def _tensors(result: StepResult) -> list[Tensor]:
    output = result.output
    return [output.pred, *output.losses.values(), *output.per_modality.values(), result.loss]


def unet() -> ModalityNetwork:
    torch.manual_seed(0)
    return ModalityUNet(2, 4, 3, channels=(4, 8), deep_supervision=0).double()


METHODS: dict[str, Callable[[], Method]] = {
    "passion rfnet": lambda: Passion(small("rfnet", spatial_dims=2), "pdt"),
    "passion idt_drop rfnet": lambda: Passion(
        small("rfnet", spatial_dims=2), "idt_drop", modality_weight=[1.0, 2.0, 1.0, 0.5]
    ),
    "passion mmformer": lambda: Passion(small("mmformer", spatial_dims=2), "pdt"),
    "passion m2ftrans": lambda: Passion(small("m2ftrans", spatial_dims=2), "pdt"),
    "passion unet": lambda: Passion(unet(), "pdt", unimodal="student"),
    "baseline rfnet": lambda: ModalityDropoutBaseline(small("rfnet", spatial_dims=2), WeightedCEDiceLoss()),
    "baseline unet": lambda: ModalityDropoutBaseline(unet(), WeightedCEDiceLoss()),
    "subset students unet": lambda: SubsetStudents(unet(), WeightedCEDiceLoss()),
    "medmap unet": lambda: MedMAP(ModalityDropoutBaseline(AlignedNetwork(unet()), WeightedCEDiceLoss())),
    "medmap passion rfnet": lambda: MedMAP(Passion(AlignedNetwork(small("rfnet", spatial_dims=2)), "pdt")),
    "dmaf rfnet": lambda: DMAF(small("rfnet", spatial_dims=2).float()).double(),
}


def batch_of(method: Method, masks: list[tuple[bool, ...]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = len(masks)
    visible = torch.tensor(masks)
    present = torch.ones_like(visible) if seed % 2 else visible.clone()
    return {
        "image": torch.randn((rows, 4, *SIZE), generator=generator, dtype=torch.float64),
        "modality_mask": visible,
        "present_mask": present,
        "label": torch.randint(0, method.network.out_channels, (rows, 1, *SIZE), generator=generator),
    }


def eager_step(method: Method, batch: dict[str, Tensor]) -> tuple[MethodOutput, list[Tensor | None]]:
    for parameter in method.parameters():
        parameter.grad = None
    output: MethodOutput = method(**batch)
    torch.stack(list(output.losses.values())).sum().backward()
    return output, [parameter.grad for parameter in method.parameters()]


def total(output: MethodOutput) -> Tensor:
    return torch.stack(list(output.losses.values())).sum()


def pattern(batch: dict[str, Tensor]) -> Hashable:
    return str(batch["modality_mask"].tolist()), str(batch["present_mask"].tolist())


@pytest.mark.parametrize("name", METHODS)
def test_replayed_steps_equal_eager_ones(name: str) -> None:
    method = METHODS[name]().train()
    reference = copy.deepcopy(method)
    captured = CapturedStep(method, total, recorder=Rerun(method))
    for round_ in range(3):  # eager and watched, recorded, replayed
        for i, mask in enumerate(MASKS[1:] if name == "passion rfnet" else MASKS[1:2]):
            batch = batch_of(method, [mask], seed=1 + i + 10 * round_)
            torch.manual_seed(round_)  # dropout
            expected, gradients = eager_step(reference, batch)
            torch.manual_seed(round_)
            result = captured(batch, pattern(batch))
            assert sorted(result.output.losses) == sorted(expected.losses)
            for key, value in expected.losses.items():
                torch.testing.assert_close(result.output.losses[key], value.detach(), rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(result.output.pred, expected.pred.detach(), rtol=1e-10, atol=1e-12)
            for key, value in expected.per_modality.items():
                got = result.output.per_modality[key]
                torch.testing.assert_close(got, value, rtol=1e-10, atol=1e-12, equal_nan=True)
            for parameter, gradient in zip(method.parameters(), gradients, strict=True):
                if gradient is not None:
                    assert parameter.grad is not None
                    torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-12)
                elif parameter.grad is not None:
                    assert not parameter.grad.any()
    assert captured.recorded > 0
    assert not any(p.eager for p in captured.patterns.values())
    for own, other in zip(method.buffers(), reference.buffers(), strict=True):  # the state that balances
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-12, equal_nan=True)


def test_batches_of_several_samples() -> None:
    method = METHODS["passion rfnet"]().train()
    reference = copy.deepcopy(method)
    captured = CapturedStep(method, total, recorder=Rerun(method))
    for seed in (1, 3, 5):
        batch = batch_of(method, MASKS[1:], seed)
        expected, _ = eager_step(reference, batch)
        torch.testing.assert_close(captured(batch, pattern(batch)).loss, total(expected).detach())
    assert captured.recorded == 1


class Peeks(Method):
    """Chooses its loss by what the prediction holds, and claims that a step can be recorded."""

    def course(self) -> Hashable:
        return "peeks"

    def step(self, features: Any, image: Tensor, modality_mask: Any, present_mask: Any, label: Any) -> MethodOutput:
        logits = self.network.decode(features, modality_mask).logits
        value = logits.square().mean() if bool(image.mean() > 0) else logits.mean()
        return MethodOutput(logits, {"fused": value}, {})


def test_a_step_that_looks_at_data_stays_eager(caplog: pytest.LogCaptureFixture) -> None:
    method = Peeks(unet()).train()
    captured = CapturedStep(method, total, recorder=Rerun(method))
    for seed in (1, 3, 5):
        batch = batch_of(method, [MASKS[0]], seed)
        expected, _ = eager_step(copy.deepcopy(method), batch)
        torch.testing.assert_close(captured(batch, pattern(batch)).loss, total(expected).detach())
    assert captured.recorded == 0
    assert len([r for r in caplog.records if "not recorded" in r.message]) == 1


@pytest.mark.parametrize("name", ["passion", "dmaf"])
def test_a_step_that_computes_anew_in_backward_stays_eager(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """As students do on a GPU that they would not fit: nothing of the attempt is left, not even random numbers."""
    again = StudentMode.CHECKPOINT
    method: Method
    if name == "passion":  # mmFormer has dropout
        method = Passion(small("mmformer", spatial_dims=2), "pdt", unimodal="student", students=again)
    else:  # the monitor changes before students are decoded
        method = DMAF(unet().float(), students=again)
    method = method.double().train()
    reference = copy.deepcopy(method)
    captured = CapturedStep(method, total, recorder=Rerun(method))
    for seed in (1, 3, 5):
        batch = batch_of(method, [MASKS[0]], seed)
        torch.manual_seed(seed)
        expected, gradients = eager_step(reference, batch)
        after = torch.rand(1)
        torch.manual_seed(seed)
        result = captured(batch, pattern(batch))
        torch.testing.assert_close(result.loss, total(expected).detach(), rtol=0, atol=0)
        assert torch.equal(torch.rand(1), after)
        for parameter, gradient in zip(method.parameters(), gradients, strict=True):
            assert gradient is None or torch.equal(parameter.grad, gradient)
    assert captured.recorded == 0
    assert len([r for r in caplog.records if "computed again in backward" in r.message]) == 1
    for own, other in zip(method.buffers(), reference.buffers(), strict=True):
        assert torch.equal(own.nan_to_num(7.0), other.nan_to_num(7.0))


def test_a_recording_that_breaks_off_is_no_end(caplog: pytest.LogCaptureFixture) -> None:
    method = METHODS["baseline unet"]().train()

    def refuse(run: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    captured = CapturedStep(method, total, recorder=refuse)
    for seed in (1, 3, 5):
        batch = batch_of(method, [MASKS[0]], seed)
        expected, _ = eager_step(copy.deepcopy(method), batch)
        torch.testing.assert_close(captured(batch, pattern(batch)).loss, total(expected).detach())
    assert captured.recorded == 0
    assert len([r for r in caplog.records if "not permitted" in r.message]) == 1


def test_replaced_state_voids_a_recording() -> None:
    method = METHODS["passion rfnet"]().train()
    captured = CapturedStep(method, total, recorder=Rerun(method))
    for seed in (1, 3):
        captured(batch_of(method, [MASKS[0]], seed), "all")
    before = [p.replay for p in captured.patterns.values()]
    method.balance.beta = method.balance.beta.clone()  # type: ignore[union-attr, operator]
    captured(batch_of(method, [MASKS[0]], 5), "all")
    after = [p.replay for p in captured.patterns.values()]
    assert before[0] is not None
    assert after[0] is not None
    assert after[0] is not before[0]


def test_limited_number_of_recordings() -> None:
    method = METHODS["baseline unet"]().train()
    captured = CapturedStep(method, total, recorder=Rerun(method), max_patterns=1)
    for _ in range(2):
        for mask in MASKS:
            batch = batch_of(method, [mask], 2)
            captured(batch, pattern(batch))
    assert captured.recorded == 1


def test_questions_about_data_are_errors() -> None:
    mask, data = torch.tensor([True, False]), torch.tensor([1.0, -1.0])
    decisions = MaskDecisions([mask])
    with decisions.recording():
        assert torch.nonzero(mask).tolist() == [[0]]
        assert data[mask].shape == (1,)
        assert bool((torch.arange(2) < mask.sum()).any())
        for question in (lambda: bool(data[0] > 0), lambda: torch.nonzero(data), lambda: data[data > 0]):
            with pytest.raises(DataDecisionError, match="does not follow"):
                question()
        mixed = torch.zeros(2)
        mixed += data
        with pytest.raises(DataDecisionError):
            mixed.tolist()


def test_replay_answers_from_memory_and_notices_another_course() -> None:
    mask = torch.tensor([True, False])
    decisions = MaskDecisions([mask])
    with decisions.recording():
        rows = torch.nonzero(mask)
    with decisions.replaying():
        assert torch.nonzero(torch.tensor([False, False]) if False else mask) is rows
    with pytest.raises(DataDecisionError, match="asks for tolist"), decisions.replaying():
        mask.tolist()
    with pytest.raises(DataDecisionError, match="0 questions"), decisions.replaying():
        pass
    rows.add_(1)
    with pytest.raises(DataDecisionError, match="in place"), decisions.replaying():
        torch.nonzero(mask)


def test_a_recorded_training_equals_an_eager_one(tmp_path: Path) -> None:
    eager = tiny_trainer(tmp_path / "eager", epochs=12)
    eager.run()
    recorded = tiny_trainer(tmp_path / "recorded", epochs=12)
    method = recorded.method
    recorded.captured = CapturedStep(
        method, lambda output: recorded._weighted_sum(output, output.pred), recorder=Rerun(method)
    )
    recorded.run()
    assert recorded.captured.recorded > 0
    for one, other in zip(eager.method.state_dict().values(), method.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    logs = [(tmp_path / name / "training.csv").read_text(encoding="utf-8") for name in ("eager", "recorded")]
    assert logs[0] == logs[1]


def test_recorded_steps_check_labels(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.captured = CapturedStep(trainer.method, total, recorder=Rerun(trainer.method))
    for item in trainer.data_loader.dataset.data:
        item["label"][:] = 7
    with pytest.raises(ValueError, match="label holds classes 7"):
        trainer.run()


def test_trainer_says_why_steps_are_not_recorded(tmp_path: Path) -> None:
    assert tiny_trainer(tmp_path).captured is None
    with pytest.raises(ValueError, match="the device is no GPU"):
        tiny_trainer(tmp_path, steps="recorded")
