"""EarlyFusionUNet obeys the network contract."""

from __future__ import annotations

import pytest
import torch

from medmap_monai.modalities import BRATS, Modalities
from medmap_monai.networks.early_fusion_unet import EarlyFusionUNet

SIZES = {2: (16, 16), 3: (8, 8, 8)}


def small(spatial_dims: int = 3, modalities: int = 4, **kwargs: int) -> EarlyFusionUNet:
    torch.manual_seed(0)
    return EarlyFusionUNet(spatial_dims, modalities, 3, channels=(4, 8, 8), embedding_channels=2, deep_supervision=1)


@pytest.mark.parametrize(("spatial_dims", "modalities", "batch"), [(3, 4, 2), (3, 2, 1), (2, 3, 2), (2, 1, 1)])
@torch.no_grad()
def test_shapes(spatial_dims: int, modalities: int, batch: int) -> None:
    net = small(spatial_dims, modalities).eval()
    image = torch.randn(batch, modalities, *SIZES[spatial_dims])
    mask = torch.ones(batch, modalities, dtype=torch.bool)
    features = net.encode(image, mask)
    assert [tuple(f.shape) for f in features.pyramid] == [(batch, modalities, 2, *SIZES[spatial_dims])]
    output = net.decode(features, mask)
    assert output.logits.shape == (batch, 3, *SIZES[spatial_dims])
    assert [f.shape[1] for f in output.fused] == [4, 8, 8]
    assert [f.shape[0] for f in output.fused] == [batch] * 3
    assert len(output.deep_logits) == 1
    assert torch.equal(net(image, mask), output.logits)


@torch.no_grad()
def test_absent_content_has_no_influence_and_every_subset_differs() -> None:
    net = small().eval()
    image = torch.randn(1, 4, *SIZES[3])
    seen = []
    for flags in BRATS.subset_masks():
        mask = torch.tensor([flags])
        spoiled = torch.where(mask[:, :, None, None, None], image, torch.full_like(image, float("nan")))
        clean = net(image, mask)
        assert torch.equal(clean, net(spoiled, mask))
        seen.append(clean)
    different = [not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i]]
    assert all(different)


@torch.no_grad()
def test_encode_once_serves_every_subset() -> None:
    net = small(modalities=3).eval()
    image = torch.randn(2, 3, *SIZES[3])
    features = net.prepare(net.encode(image, torch.ones(2, 3, dtype=torch.bool)))
    for flags in Modalities(("a", "b", "c")).subset_masks():
        mask = torch.tensor([flags, flags])
        torch.testing.assert_close(net.decode(features, mask).logits, net(image, mask), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_row_without_modalities_is_background() -> None:
    logits = small().eval()(torch.randn(2, 4, *SIZES[3]), torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0]]).bool())
    assert (logits[1].argmax(dim=0) == 0).all()
    assert logits.isfinite().all()


@torch.no_grad()
def test_torchscript() -> None:
    net = small().eval()
    image, mask = torch.randn(2, 4, *SIZES[3]), torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0]]).bool()
    torch.testing.assert_close(torch.jit.script(net)(image, mask), net(image, mask), rtol=0, atol=1e-5)


def test_every_parameter_learns() -> None:
    net = small().train()
    features = net.encode(torch.randn(2, 4, *SIZES[3]), torch.ones(2, 4, dtype=torch.bool))
    output = net.decode(features, torch.ones(2, 4, dtype=torch.bool))
    sum(logits.square().mean() for logits in [output.logits, *output.deep_logits]).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in net.named_parameters() if n.endswith("weight"))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"embedding_channels": 0}, "embedding_channels"),
        ({"channels": (4,)}, "two levels"),
        ({"channels": (4, 8), "deep_supervision": 1}, "deep_supervision"),
    ],
)
def test_ill_arguments(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EarlyFusionUNet(3, 4, 3, **kwargs)  # type: ignore[arg-type]
