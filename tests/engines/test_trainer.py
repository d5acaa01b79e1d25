from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn

from medmap_monai.engines.trainer import ModalityTrainer
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.networks.base import ModalityNetwork
from tests.engines.training import tiny_method, tiny_trainer


class Recorder(Method):
    """Notes the order of the hooks and scales gradients to zero."""

    def __init__(self, network: ModalityNetwork) -> None:
        super().__init__(network)
        self.calls: list[str] = []
        self.inner = tiny_method(network)

    def forward(self, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor) -> MethodOutput:
        self.calls.append("step")
        return self.inner(image, modality_mask, present_mask, label)

    def on_epoch_start(self, epoch: int) -> None:
        self.calls.append(f"start {epoch}")

    def after_backward(self) -> None:
        for p in self.parameters():
            if p.grad is not None:
                p.grad.zero_()
        self.calls.append("after_backward")

    def on_epoch_end(self, epoch: int) -> None:
        self.calls.append(f"end {epoch}")


def test_training_lowers_the_loss_and_reports_each_loss(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, epochs=12)
    seen: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output["loss"].item()))
    trainer.run()
    assert sum(seen[-3:]) < 0.9 * sum(seen[:3])
    output = trainer.state.output
    assert set(output["losses"]) == {"fused", "modality"}
    assert output["loss"].item() == pytest.approx(float(sum(output["losses"].values())), rel=1e-5)
    assert output["pred"].shape == (2, 3, 8, 8)
    assert output["per_modality"]["modality"].shape == (3,)


def test_hooks_run_in_order_and_may_change_gradients(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, epochs=2, make_method=Recorder)
    method = trainer.method
    assert isinstance(method, Recorder)
    before = {k: v.clone() for k, v in method.network.state_dict().items()}
    trainer.optimizer.param_groups[0]["weight_decay"] = 0.0
    trainer.run()
    epoch = ["step", "after_backward"] * 3
    assert method.calls == ["start 0", *epoch, "end 0", "start 1", *epoch, "end 1"]
    for key, value in method.network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_accumulated_steps_adjust_gradients_once_per_optimiser_step(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, epochs=1, make_method=Recorder, accumulation_steps=2)
    trainer.run()
    assert isinstance(trainer.method, Recorder)
    assert trainer.method.calls == ["start 0", "step", "step", "after_backward", "step", "after_backward", "end 0"]


def test_loss_weights(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, epochs=1, loss_weights={"modality": 0.0})
    trainer.run()
    output = trainer.state.output
    assert output["loss"].item() == pytest.approx(float(output["losses"]["fused"]))


def test_unknown_loss_weight_lists_the_losses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"names \['kl'\]; this method's losses are \['fused', 'modality'\]"):
        tiny_trainer(tmp_path, epochs=1, loss_weights={"kl": 1.0}).run()


def test_gradients_are_clipped(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, epochs=1, max_grad_norm=1e-3)
    trainer.run()
    norms = [p.grad.norm() for p in trainer.method.parameters() if p.grad is not None]
    assert float(torch.stack(norms).norm()) <= 1e-3 * 1.01


def test_a_plain_module_is_refused() -> None:
    with pytest.raises(TypeError, match="needs a medmap_monai Method"):
        ModalityTrainer("cpu", 1, [], nn.Conv2d(1, 1, 1), optimizer=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 2])
def test_weights_do_not_depend_on_the_number_of_workers(tmp_path: Path, workers: int) -> None:
    results = []
    for count in (0, workers):
        trainer = tiny_trainer(tmp_path / str(count), epochs=2, workers=count)
        trainer.run()
        results.append(trainer.method.network.state_dict())
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key
