"""Domain adaptation: two paths, consistency, adversarial discriminator."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from medmap_monai.methods.domain_adaptation import DomainAdaptation
from medmap_monai.methods.domain_discriminator import DomainDiscriminator, reverse_gradient
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.early_fusion_unet import EarlyFusionUNet
from medmap_monai.networks.unet import ModalityUNet

LOSS = DiceCELoss(to_onehot_y=True, softmax=True)


def network(seed: int = 0, modalities: int = 4) -> AlignedNetwork:
    torch.manual_seed(seed)
    return AlignedNetwork(
        EarlyFusionUNet(3, modalities, 3, channels=(4, 4, 8), embedding_channels=2, deep_supervision=1)
    )


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 4, 8, 8, 8, generator=generator)
    label = torch.randint(0, 3, (2, 1, 8, 8, 8), generator=generator)
    visible = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0]]).bool()
    return image, visible, torch.ones(2, 4, dtype=torch.bool), label


def test_losses_by_hand() -> None:
    image, visible, present, label = batch()
    net = network()
    method = DomainAdaptation(net, LOSS, consistency_weight=2.0, bottleneck_weight=0.3).train()
    output = method(image, visible, present, label)
    features = net.encode(image, present)
    full, missing = net.decode(features, present), net.decode(features, visible)
    assert torch.equal(output.pred, missing.logits)
    torch.testing.assert_close(output.losses["full"], LOSS(full.logits, label))
    torch.testing.assert_close(output.losses["missing"], LOSS(missing.logits, label))
    distance = mse_loss(full.logits.softmax(1), missing.logits.softmax(1))
    torch.testing.assert_close(output.losses["consistency"], 2.0 * distance)
    size = full.fused[-1].square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()
    expected = 0.3 * mse_loss(missing.fused[-1] / size, full.fused[-1] / size)
    torch.testing.assert_close(output.losses["bottleneck"], expected)
    assert set(output.losses) == {"full", "missing", "deep", "consistency", "bottleneck"}


def test_nothing_missing_means_nothing_to_adapt() -> None:
    image, _, present, label = batch()
    losses = DomainAdaptation(network(), LOSS).train()(image, present, present, label).losses
    assert losses["consistency"] == 0
    assert losses["bottleneck"] == 0
    assert torch.equal(losses["full"], losses["missing"])


@pytest.mark.parametrize("detach", [False, True])
def test_a_network_of_its_own_for_the_full_path(detach: bool) -> None:
    full_network = network(1)
    method = DomainAdaptation(network(0), LOSS, full_network=full_network, detach_full=detach, bottleneck_weight=0.5)
    losses = method.train()(*batch()).losses
    (losses["consistency"] + losses["bottleneck"]).backward()
    received = sum(p.grad.abs().sum() for p in full_network.parameters() if p.grad is not None)
    assert bool(received > 0) != detach
    assert sum(p.grad.abs().sum() for p in method.network.parameters() if p.grad is not None) > 0
    assert losses["full"].requires_grad


def test_gradient_reversal() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    (reverse_gradient(x) * torch.tensor([3.0, 4.0])).sum().backward()
    assert torch.equal(reverse_gradient(x), x)
    assert x.grad is not None
    assert x.grad.tolist() == [-3.0, -4.0]


def test_discriminator_loss_is_binary_cross_entropy_over_the_samples_that_lack_something() -> None:
    discriminator = DomainDiscriminator(3, 8)
    full, missing = torch.randn(3, 8, 2, 2, 2), torch.randn(3, 8, 2, 2, 2)
    got = discriminator.loss(full, missing, torch.tensor([1.0, 0.0, 1.0]))
    kept = [0, 2]
    real, fake = discriminator(full[kept]), discriminator(missing[kept])
    expected = 0.5 * (
        binary_cross_entropy_with_logits(real, torch.ones_like(real))
        + binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    )
    torch.testing.assert_close(got, expected)
    assert discriminator.loss(full, missing, torch.zeros(3)) == 0


def test_the_two_sides_pull_in_opposite_directions() -> None:
    """A step on the discriminator lowers its loss, a step on the features raises it."""
    torch.manual_seed(0)
    discriminator = DomainDiscriminator(3, 4)
    full, missing = torch.randn(2, 4, 2, 2, 2, requires_grad=True), torch.randn(2, 4, 2, 2, 2, requires_grad=True)
    rows = torch.ones(2)
    before = discriminator.loss(full, missing, rows)
    before.backward()
    assert full.grad is not None
    assert missing.grad is not None
    with torch.no_grad():
        moved = discriminator.loss(full - 0.5 * full.grad, missing - 0.5 * missing.grad, rows)
        for p in discriminator.parameters():
            p -= 0.05 * p.grad
        assert moved > before
        assert discriminator.loss(full, missing, rows) < before


def test_adversarial_training_is_optional() -> None:
    assert not any("discriminator" in key for key in DomainAdaptation(network(), LOSS).state_dict())
    method = DomainAdaptation(network(), LOSS, adversarial_weight=0.1, discriminator_channels=8).train()
    losses = method(*batch()).losses
    losses["adversarial"].backward()
    assert method.discriminator is not None
    assert all(p.grad is not None for p in method.discriminator.parameters())
    assert sum(p.grad.abs().sum() for p in method.network.parameters() if p.grad is not None) > 0


def test_ill_arguments() -> None:
    with pytest.raises(ValueError, match="discriminator_channels"):
        DomainAdaptation(network(), LOSS, adversarial_weight=0.1)
    with pytest.raises(ValueError, match="full_network"):
        DomainAdaptation(network(), LOSS, full_network=network(modalities=3))


def test_a_network_without_deep_heads_needs_no_deep_loss() -> None:
    network = ModalityUNet(2, 2, 2, channels=(4, 8), deep_supervision=0)
    full = ModalityUNet(2, 2, 2, channels=(4, 8, 8), deep_supervision=1)
    mask = torch.ones(1, 2, dtype=torch.bool)
    for other, expected in ((None, False), (full, True)):
        method = DomainAdaptation(network, LOSS, other, bottleneck_weight=0)
        output = method(torch.rand(1, 2, 8, 8), mask, mask, torch.zeros(1, 1, 8, 8))
        assert ("deep" in output.losses) is expected
        assert torch.stack(list(output.losses.values())).isfinite().all()
