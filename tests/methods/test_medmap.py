"""MedMAP around other methods."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

from medmap_monai.inferers.unwrap import find_network
from medmap_monai.losses.alignment import AlignmentLoss
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.methods.domain_adaptation import DomainAdaptation
from medmap_monai.methods.medmap import MedMAP
from medmap_monai.methods.passion import Passion
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import ModalityFeatures
from medmap_monai.networks.unet import ModalityUNet

LOSS = DiceCELoss(to_onehot_y=True, softmax=True)


def network(**kwargs: object) -> AlignedNetwork:
    torch.manual_seed(0)
    unet = ModalityUNet(3, 4, 3, channels=(4, 4, 8), deep_supervision=1)
    published: dict[str, object] = {"levels": [0], "training_source": "full"}
    return AlignedNetwork(unet, **{**published, **kwargs})  # type: ignore[arg-type]


def batch(present: str = "1111", visible: str = "1010") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 4, 8, 8, 8, generator=generator)
    label = torch.randint(0, 3, (2, 1, 8, 8, 8), generator=generator)
    present_mask = torch.tensor([[b == "1" for b in present]] * 2)
    visible_mask = torch.tensor([[b == "1" for b in visible], [b == "1" for b in reversed(visible)]]) & present_mask
    return image, visible_mask, present_mask, label


def test_it_adds_one_loss_and_leaves_the_others_alone() -> None:
    base = ModalityDropoutBaseline(network(), LOSS).train()
    plain, total = base(*batch()), MedMAP(base, weight=0.5)(*batch())
    assert torch.equal(plain.pred, total.pred)
    assert set(total.losses) == {*plain.losses, "align"}
    assert all(torch.equal(total.losses[name], value) for name, value in plain.losses.items())
    assert total.per_modality["align"].shape == (4,)
    assert not total.per_modality["align"].requires_grad


@pytest.mark.parametrize("levels", [[0], [-1], [0, 1, 2]])
def test_the_loss_is_the_weighted_mean_over_levels(levels: list[int]) -> None:
    net = network(levels=levels)
    image, visible, present, label = batch()
    got = MedMAP(ModalityDropoutBaseline(net, LOSS), weight=0.5).train()(image, visible, present, label).losses["align"]
    features = net.encode(image, present)
    terms = [AlignmentLoss()(maps, anchor, present) for maps, anchor in net.anchors(features, present).values()]
    assert len(terms) == len(levels)
    torch.testing.assert_close(got, 0.5 * torch.stack(terms).mean())


def test_hidden_modalities_are_aligned_too_and_absent_ones_never() -> None:
    method = MedMAP(ModalityDropoutBaseline(network(), LOSS, modality_weight=0.0)).train()
    image, visible, present, label = batch(present="1110")
    seen = method(image, visible, present, label)
    assert torch.isnan(seen.per_modality["align"]).tolist() == [False, False, False, True]
    spoiled = image.clone()
    spoiled[:, 3] = float("nan")
    assert torch.equal(method(spoiled, visible, present, label).losses["align"], seen.losses["align"])
    hidden = image.clone()
    hidden[0, 1] += torch.linspace(0, 3, 8)  # present, but hidden in sample 0
    assert not torch.equal(method(hidden, visible, present, label).losses["align"], seen.losses["align"])


@pytest.mark.parametrize("form", ["mse", "gaussian_kl"])
@pytest.mark.parametrize("anchor", ["adaptive", "normal"])
def test_gradients_of_the_alignment_reach_every_encoder(form: str, anchor: str) -> None:
    method = MedMAP(ModalityDropoutBaseline(network(anchor=anchor, learn_normal=True), LOSS), loss=AlignmentLoss(form))
    method.train()(*batch()).losses["align"].backward()
    for encoder in method.network.encoders:
        assert sum(p.grad.abs().sum() for p in encoder.parameters() if p.grad is not None) > 0
    learned = ["mixture"] if anchor == "adaptive" else ["normal_mean", "normal_log_variance"]
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in method.network.named_parameters() if n in learned
    )


def test_anchor_none_is_the_unaligned_baseline() -> None:
    base = ModalityDropoutBaseline(network(anchor="none"), LOSS, modality_weight=0.0).train()
    output = MedMAP(base).train()(*batch())
    assert output.losses["align"] == 0
    assert torch.equal(output.pred, base(*batch()).pred)


def test_training_lowers_the_gap() -> None:
    method = MedMAP(ModalityDropoutBaseline(network(levels=[-1]), LOSS, modality_weight=0.0), weight=1.0).train()
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    values = []
    for _ in range(25):
        losses = method(*batch()).losses
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        values.append(float(losses["align"].detach()))
    assert values[-1] < 0.5 * values[0]


def test_it_extends_other_methods_as_well() -> None:
    output = MedMAP(DomainAdaptation(network(), LOSS)).train()(*batch())
    assert {"full", "missing", "consistency", "align"} <= set(output.losses)


def test_it_extends_self_distillation() -> None:
    method = MedMAP(Passion(network(), mode="pdt")).train()
    output = method(*batch())
    assert {"align", "pixel", "prototype"} <= set(output.losses)
    torch.stack(list(output.losses.values())).sum().backward()
    assert method.network.mixture.grad is not None


def test_hooks_and_state_are_those_of_the_wrapped_method() -> None:
    calls: list[object] = []

    class Recording(Method):
        def step(
            self, features: ModalityFeatures, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor
        ) -> MethodOutput:
            raise AssertionError

        def on_epoch_start(self, epoch: int) -> None:
            calls.append(("start", epoch))

        def after_backward(self) -> None:
            calls.append("backward")

        def on_epoch_end(self, epoch: int) -> None:
            calls.append(("end", epoch))

    method = MedMAP(Recording(network()))
    method.on_epoch_start(3)
    method.after_backward()
    method.on_epoch_end(3)
    assert calls == [("start", 3), "backward", ("end", 3)]
    assert method.network is method.method.network
    assert len(list(method.parameters())) == len(list(method.network.parameters()))  # none counted twice


def test_a_checkpoint_restores_it(tmp_path: Path) -> None:
    """The network has two names in the state dict; the file holds it once."""
    method = MedMAP(ModalityDropoutBaseline(network(), LOSS))
    torch.save(method.state_dict(), tmp_path / "method.pt")
    torch.save(method.network.state_dict(), tmp_path / "network.pt")
    assert (tmp_path / "method.pt").stat().st_size < 1.5 * (tmp_path / "network.pt").stat().st_size
    other = MedMAP(ModalityDropoutBaseline(network(init_std=1.0), LOSS))
    other.load_state_dict(torch.load(tmp_path / "method.pt", weights_only=True))
    assert torch.equal(other.network.mixture, method.network.mixture)
    assert find_network(method) is method.network


def test_ill_arguments() -> None:
    with pytest.raises(TypeError, match="AlignedNetwork"):
        MedMAP(ModalityDropoutBaseline(ModalityUNet(3, 4, 3, channels=(4, 8), deep_supervision=0), LOSS))
    with pytest.raises(ValueError, match="negative"):
        MedMAP(ModalityDropoutBaseline(network(), LOSS), weight=-1)


def test_it_is_a_module_that_moves_as_one() -> None:
    method: nn.Module = MedMAP(ModalityDropoutBaseline(network(), LOSS)).double()
    assert {p.dtype for p in method.parameters()} == {torch.float64}
