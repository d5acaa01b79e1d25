from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn

from medmap_monai.engines.finite_guard import TrainingDivergedError
from medmap_monai.engines.trainer import ModalityTrainer
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.networks.base import ModalityNetwork
from tests.engines.training import tiny_method, tiny_trainer, tiny_unet


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


class MockScaler:
    """Gradient scaling as on a GPU, on the CPU: what PyTorch's own does there is nothing."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.calls: list[str] = []

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self.factor

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        self.calls.append("unscale")
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad /= self.factor

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.calls[-1:] != ["unscale"]:
            self.unscale_(optimizer)
        optimizer.step()
        self.calls.append("step")

    def update(self) -> None:
        self.calls.append("update")

    def state_dict(self) -> dict[str, float]:
        return {}


@pytest.mark.parametrize("clip", [None, 1e-2])
def test_scaled_gradients_are_unscaled_before_the_method_and_clipping_see_them(
    tmp_path: Path, clip: float | None
) -> None:
    class Watcher(Recorder):
        norms: list[float]

        def after_backward(self) -> None:
            grads = [p.grad.norm() for p in self.parameters() if p.grad is not None]
            self.norms = [*getattr(self, "norms", []), float(torch.stack(grads).norm())]

    found = []
    for scaler in (None, MockScaler(1024.0)):
        trainer = tiny_trainer(tmp_path / str(scaler is None), epochs=1, make_method=Watcher, max_grad_norm=clip)
        if scaler is not None:
            trainer.amp, trainer.scaler = True, scaler  # autocast for CUDA does nothing on a CPU
        trainer.run()
        found.append((trainer.method.norms, trainer.method.network.state_dict()))
        if scaler is not None:
            assert scaler.calls == ["unscale", "step", "update"] * 3
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for key, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][key], value, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_no_number_stops_the_training_and_names_the_cases(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, epochs=1).run()
    saved = {name: (tmp_path / name).read_bytes() for name in ("checkpoint.pt", "model.pt")}
    trainer = tiny_trainer(tmp_path, epochs=3)
    for number, item in enumerate(trainer.data_loader.dataset.data):
        item["case_id"] = f"case_{number}"
    trainer.data_loader.dataset.data[4]["image"][1] = float("nan")  # one modality of one case
    trainer.data_loader.dataset.set_data(trainer.data_loader.dataset.data)
    with pytest.raises(TrainingDivergedError, match=r"epoch 2, iteration \d: .*= nan \(cases of the batch: .*case_4"):
        trainer.run()
    assert all(bool(torch.isfinite(p).all()) for p in trainer.method.parameters())  # the step was not made
    assert {name: (tmp_path / name).read_bytes() for name in saved} == saved


def test_a_learning_rate_that_is_too_high_stops_the_training(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, epochs=9)
    trainer.optimizer.param_groups[0]["lr"] = 1e20
    with pytest.raises(TrainingDivergedError, match="Lower the learning rate"):
        trainer.run()


def test_nan_in_one_modality_is_not_hidden_by_the_others() -> None:
    method = tiny_method(tiny_unet())
    image = torch.randn(2, 3, 8, 8)
    image[:, 2] = float("nan")
    masks = torch.tensor([[True, True, False]] * 2), torch.ones(2, 3, dtype=torch.bool)
    output = method(image, *masks, torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert bool(torch.isfinite(output.losses["fused"]))  # the fused path does not see it
    assert not bool(torch.isfinite(output.losses["modality"]))


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
