"""How many windows are given to a network at once."""

from __future__ import annotations

import pytest
import torch

from medmap_monai.inferers.modality_sliding_window import ModalitySlidingWindowInferer
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.inferers.window_batch import ON_CPU, fitting, windows_that_fit
from medmap_monai.networks.unet import ModalityUNet


def test_memory_decides_within_bounds() -> None:
    assert fitting(free=100.0, each=10.0) == 6
    assert fitting(free=1.0, each=10.0) == 1
    assert fitting(free=1e12, each=10.0, most=32) == 32


def test_a_cpu_is_not_measured() -> None:
    def never(windows: int) -> None:
        raise AssertionError("a CPU's memory is not measured")

    assert windows_that_fit(torch.device("cpu"), never) == ON_CPU


@pytest.mark.parametrize("inferer", [ModalitySlidingWindowInferer, SubsetSweepInferer])
@pytest.mark.parametrize("wrong", [0, -1, "many", 1.5])
def test_wrong_numbers(inferer, wrong) -> None:
    with pytest.raises(ValueError, match="at least 1 or 'auto'"):
        inferer((8, 8), sw_batch_size=wrong)


def test_auto_gives_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = ModalityUNet(2, 2, 3, channels=(4, 8), deep_supervision=0).double().eval()
    image = torch.rand(1, 2, 20, 20, dtype=torch.float64)

    def measured(device: torch.device, run) -> int:
        run(2)  # what a GPU would be measured with
        return 3

    for name in ("modality_sliding_window", "subset_sweep"):
        monkeypatch.setattr(f"medmap_monai.inferers.{name}.windows_that_fit", measured)
    network_type = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            auto = ModalitySlidingWindowInferer((8, 8), sw_batch_size="auto")(image, network)
            torch.testing.assert_close(auto, ModalitySlidingWindowInferer((8, 8), sw_batch_size=2)(image, network))
        swept = SubsetSweepInferer((8, 8), sw_batch_size="auto", output="scores")(image, network)
        expected = SubsetSweepInferer((8, 8), sw_batch_size=2, output="scores")(image, network)
    finally:
        torch.set_default_dtype(network_type)
    for mask, scores in expected.items():
        torch.testing.assert_close(swept[mask], scores)
