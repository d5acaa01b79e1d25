from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss

from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.rfnet import RFNet
from medmap_monai.networks.unet import ModalityUNet

LOSS = DiceCELoss(to_onehot_y=True, softmax=True)


def batch(size: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    present = torch.tensor([[True, True, False], [True, True, True]])
    visible = torch.tensor([[False, True, False], [True, False, True]])
    image = torch.randn(2, 3, size, size) * present[:, :, None, None]
    return image, visible, present, torch.randint(0, 3, (2, 1, size, size))


@pytest.mark.parametrize(
    "network",
    [ModalityUNet(2, 3, 3, channels=(4, 8, 16), deep_supervision=1), RFNet(2, 3, 3, base_width=4, levels=3)],
    ids=["students of the fused decoder", "own unimodal decoder"],
)
def test_every_path_is_supervised(network: ModalityNetwork) -> None:
    method = ModalityDropoutBaseline(network, LOSS)
    image, visible, present, label = batch()
    output = method(image, visible, present, label)
    assert set(output.losses) == {"fused", "deep", "modality"}
    assert output.pred.shape == (2, 3, 16, 16)
    values = output.per_modality["modality"]
    assert values.shape == (3,)
    assert torch.isfinite(values).all()
    assert float(output.losses["modality"]) == pytest.approx(float(values.mean()), rel=1e-5)
    torch.stack(list(output.losses.values())).sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None]
    assert idle == []


def test_a_modality_that_no_sample_has_is_nan_in_the_report_only() -> None:
    method = ModalityDropoutBaseline(ModalityUNet(2, 3, 3, channels=(4, 8), deep_supervision=0), LOSS)
    image, _, _, label = batch()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    output = method(image, mask, mask, label)
    assert torch.isnan(output.per_modality["modality"]).tolist() == [False, False, True]
    assert torch.isfinite(output.losses["modality"])
    output.losses["modality"].backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_fused_loss_sees_visible_modalities_only() -> None:
    method = ModalityDropoutBaseline(
        ModalityUNet(2, 3, 3, channels=(4, 8), deep_supervision=0), LOSS, modality_weight=0.0
    )
    image, visible, present, label = batch()
    first = method(image, visible, present, label)
    changed = torch.where(visible[:, :, None, None], image, torch.full_like(image, float("nan")))
    second = method(changed, visible, present, label)
    assert torch.equal(first.pred, second.pred)
    assert set(first.losses) == {"fused"}


def test_hidden_modalities_train_their_own_path() -> None:
    network = ModalityUNet(2, 3, 3, channels=(4, 8), deep_supervision=0)
    method = ModalityDropoutBaseline(network, LOSS)
    image, _, _, label = batch()
    visible = torch.tensor([[True, False, False], [True, False, False]])
    output = method(image, visible, torch.ones(2, 3, dtype=torch.bool), label)
    output.losses["modality"].backward()
    assert any(float(p.grad.abs().sum()) > 0 for p in network.encoders[2].parameters())


def test_an_unused_decoder_still_has_gradients_for_ddp() -> None:
    network = RFNet(2, 3, 3, base_width=4, levels=3)
    method = ModalityDropoutBaseline(network, LOSS, modality_weight=0.0)
    image, visible, present, label = batch()
    torch.stack(list(method(image, visible, present, label).losses.values())).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
