"""What the GPU tests train can be built and stepped: they run rarely, and must not fail for anything else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medmap_monai.methods.base import Method
from tests.gpu.methods import METHODS, batch_of, small_method, total


@pytest.mark.parametrize("make", [*METHODS.values(), small_method], ids=[*METHODS, "small"])
def test_methods_of_the_gpu_tests_make_a_step(make: Callable[[], Method]) -> None:
    method = make().train()
    loss = total(method(**batch_of(0, [[True, False, True, True]], size=16, device="cpu")))
    loss.backward()
    assert bool(loss.isfinite())
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in method.parameters())
