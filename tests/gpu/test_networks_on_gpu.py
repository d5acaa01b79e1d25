"""Every network on a GPU: the numbers of the CPU, and blind to what absent channels hold."""

from __future__ import annotations

import pytest
import torch

from medmap_monai.inferers.modality_sliding_window import ModalitySlidingWindowInferer
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.dmafnet import DMAFNet
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer
from medmap_monai.networks.rfnet import RFNet
from medmap_monai.networks.unet import ModalityUNet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
NETWORKS = {
    "unet": lambda: ModalityUNet(3, 4, 4),
    "rfnet": RFNet,
    "mmformer": MMFormer,
    "m2ftrans": M2FTrans,
    "dmafnet": lambda: DMAFNet(3, 4, 4),
}
MASKS = torch.tensor([[True, True, True, True], [False, True, False, True]])


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 rounds the inputs of convolutions to 10 bits, which would hide what is compared here; for matrix products
    it is off unless asked for, and putting that setting back fails on some versions of PyTorch."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def make(name: str) -> tuple[ModalityNetwork, torch.Tensor]:
    torch.manual_seed(0)
    return NETWORKS[name]().eval(), torch.randn(2, 4, 32, 32, 32)


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_cpu(name: str) -> None:
    network, image = make(name)
    with torch.no_grad():
        expected = network(image, MASKS)
        found = network.cuda()(image.cuda(), MASKS.cuda()).cpu()
        torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3)
        assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.999
        hidden = torch.where(MASKS.reshape(2, 4, 1, 1, 1), image, torch.full_like(image, float("nan")))
        assert torch.equal(network(hidden.cuda(), MASKS.cuda()).cpu(), found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_is_finite_and_agrees(name: str, dtype: torch.dtype) -> None:
    network, image = make(name)
    network, image, masks = network.cuda(), image.cuda(), MASKS.cuda()
    with torch.no_grad():
        expected = network(image, masks)
        with torch.autocast("cuda", dtype=dtype):
            found = network(image, masks).float()
    assert bool(found.isfinite().all())
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize("windows", [1, 5, "auto"])
def test_the_number_of_windows_does_not_matter(windows: int | str) -> None:
    network, _ = make("rfnet")
    network = network.cuda()
    image, present = torch.randn(1, 4, 40, 36, 32, device="cuda"), torch.ones(1, 4, dtype=torch.bool, device="cuda")
    with torch.no_grad():
        expected = ModalitySlidingWindowInferer((16, 16, 16), sw_batch_size=2)(image, network, present)
        found = ModalitySlidingWindowInferer((16, 16, 16), sw_batch_size=windows)(image, network, present)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    swept = SubsetSweepInferer((16, 16, 16), sw_batch_size=windows, output="scores")(image, network, present)
    torch.testing.assert_close(swept[(True,) * 4], expected, atol=1e-3, rtol=1e-3)
