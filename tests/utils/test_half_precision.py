"""Mixed precision runs in bfloat16 wherever that is native, and what float16 cannot hold is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medmap_monai.engines.finite_guard import FiniteGuard, TrainingDivergedError
from medmap_monai.utils.half_precision import half_precision
from tests.engines.training import tiny_trainer
from tests.utils.test_current_device import stand_in_gpus


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_without_bfloat16_uses_float16(native: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    current = stand_in_gpus(monkeypatch)
    assert half_precision("cuda:1") == dtype
    assert asked == [False], "emulated bfloat16 is slower than float32"
    assert current == ["cuda:1", None], "the GPU that is asked is the one that computes"
    assert half_precision(torch.device("cpu")) == torch.bfloat16


def test_the_trainer_follows_unless_it_is_told(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "a", amp=True)
    assert trainer.amp_kwargs == {"dtype": half_precision("cpu")}
    told = tiny_trainer(tmp_path / "b", amp=True, amp_kwargs={"dtype": torch.float16, "cache_enabled": False})
    assert told.amp_kwargs == {"dtype": torch.float16, "cache_enabled": False}
    assert tiny_trainer(tmp_path / "c").amp_kwargs == {}


def test_float16_is_named_where_it_may_be_the_cause() -> None:
    broken = {"loss": torch.tensor(float("nan"))}
    with pytest.raises(TrainingDivergedError, match=r"float16 ends at 65,504: bfloat16 or no mixed precision"):
        FiniteGuard(torch.float16).look_at(broken, 1, 2, ["case"])
    with pytest.raises(TrainingDivergedError, match="Lower the learning rate") as caught:
        FiniteGuard(torch.bfloat16).look_at(broken, 1, 2, ["case"])
    assert "float16" not in str(caught.value)
