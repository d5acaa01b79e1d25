from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss

from medmap_monai.losses.deep_supervision import deep_supervision_loss
from medmap_monai.losses.temperature_kl import TemperatureKLLoss
from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.methods.subset_students import SubsetStudents
from medmap_monai.networks.unet import ModalityUNet

LOSS = DiceCELoss(to_onehot_y=True, softmax=True)


def unet() -> ModalityUNet:
    torch.manual_seed(0)
    return ModalityUNet(2, 3, 3, channels=(4, 8, 16), deep_supervision=1)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    present = torch.tensor([[True, True, False], [True, True, True]])
    drawn = torch.tensor([[False, True, False], [True, False, True]])
    image = torch.randn(2, 3, 16, 16) * present[:, :, None, None]
    return image, drawn, present, torch.randint(0, 3, (2, 1, 16, 16))


def test_losses_are_those_of_the_two_paths() -> None:
    network = unet()
    image, drawn, present, label = batch()
    output = SubsetStudents(network, LOSS, subset_weight=0.7, consistency_weight=0.3)(image, drawn, present, label)
    features = network.prepare(network.encode(image, present))
    whole, subset = network.decode(features, present), network.decode(features, drawn)
    assert torch.allclose(output.pred, whole.logits)
    assert output.losses["fused"].item() == pytest.approx(LOSS(whole.logits, label).item(), rel=1e-5)
    deep = deep_supervision_loss(LOSS, whole.deep_logits, label)
    assert output.losses["deep"].item() == pytest.approx(deep.item(), rel=1e-5)
    own = LOSS(subset.logits, label) + deep_supervision_loss(LOSS, subset.deep_logits, label)
    assert output.losses["subset"].item() == pytest.approx(0.7 * own.item(), rel=1e-5)
    kl = TemperatureKLLoss()
    wanted = kl(subset.logits, whole.logits) + 0.5 * kl(subset.deep_logits[0], whole.deep_logits[0])
    assert output.losses["consistency"].item() == pytest.approx(0.3 * wanted.item(), rel=1e-5)


def test_the_path_over_everything_learns_from_labels_only() -> None:
    """A drawn subset without a modality gives that modality's encoder no gradient through the divergence."""
    network = unet()
    image, _, present, label = batch()
    drawn = torch.tensor([[True, False, False], [True, False, False]])
    output = SubsetStudents(network, LOSS)(image, drawn, present, label)
    output.losses["consistency"].backward()
    hidden = [p.grad for p in network.encoders[1].parameters()]
    assert all(g is None or not g.any() for g in hidden)
    assert any(p.grad is not None and bool(p.grad.any()) for p in network.encoders[0].parameters())


def test_a_subset_that_is_everything_is_plain_training() -> None:
    image, _, present, label = batch()
    plain = ModalityDropoutBaseline(unet(), LOSS, modality_weight=0.0)(image, present, present, label)
    output = SubsetStudents(unet(), LOSS)(image, present, present, label)
    assert output.losses["consistency"].item() == pytest.approx(0.0, abs=1e-6)
    assert torch.equal(output.losses["fused"], plain.losses["fused"])
    both = plain.losses["fused"] + plain.losses["deep"]
    assert output.losses["subset"].item() == pytest.approx(both.item(), rel=1e-6)


def test_terms_of_weight_zero_are_left_out() -> None:
    output = SubsetStudents(unet(), LOSS, deep_weight=0.0, consistency_weight=0.0)(*batch())
    assert set(output.losses) == {"fused", "subset"}
    output = SubsetStudents(unet(), LOSS, deep_weight=0.0, subset_weight=0.0)(*batch())
    assert set(output.losses) == {"fused", "consistency"}


def test_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="consistency_weight -1"):
        SubsetStudents(unet(), LOSS, consistency_weight=-1.0)
