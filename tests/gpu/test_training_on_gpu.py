"""Training steps on a GPU: recorded ones equal eager ones, half precision is finite, processes agree."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from medmap_monai.engines.captured_step import CapturedStep, CudaGraphs
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.methods.students import StudentMode
from tests.engines.training import tiny_trainer
from tests.gpu.methods import METHODS, batch_of, small_method, total

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def without_dropout(method: Method) -> Method:
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_rate"):
            module.dropout_rate = 0.0
    return method


@pytest.mark.parametrize("name", METHODS)
def test_recorded_steps_equal_eager_ones(name: str) -> None:
    torch.manual_seed(0)
    method = without_dropout(METHODS[name]()).train().cuda()
    reference = copy.deepcopy(method)
    captured = CapturedStep(method, total)
    for round_ in range(4):
        for i, mask in enumerate(([True] * 4, [True, False, True, False])):
            batch = batch_of(2 * round_ + i, [mask])
            for parameter in reference.parameters():
                parameter.grad = None
            expected: MethodOutput = reference(**batch)
            total(expected).backward()
            result = captured(batch, str(mask))
            for key, value in expected.losses.items():
                torch.testing.assert_close(result.output.losses[key], value.detach(), rtol=1e-3, atol=1e-4)
            mine = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
            theirs = [p.grad if p.grad is not None else torch.zeros_like(p) for p in reference.parameters()]
            kept = [p.grad is not None for p in method.parameters()]
            other = torch.cat([g.flatten() for g, keep in zip(theirs, kept, strict=True) if keep])
            assert float((mine - other).norm() / other.norm()) < 1e-2
    assert captured.recorded == 2
    for own, theirs_ in zip(method.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(own, theirs_, rtol=1e-3, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", METHODS)
def test_half_precision_steps_are_finite(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    method = METHODS[name]().train().cuda()
    scaler = torch.amp.GradScaler("cuda", init_scale=256.0, enabled=dtype == torch.float16)
    captured = CapturedStep(method, total, scaler.scale, lambda: torch.autocast("cuda", dtype=dtype))
    for seed in range(3):
        result = captured(batch_of(seed, [[True, True, False, True]]), "one")
        assert bool(result.loss.isfinite())
        assert all(bool(p.grad.isfinite().all()) for p in method.parameters() if p.grad is not None)
    assert captured.recorded == 1


def test_a_recording_that_breaks_off_leaves_dropout_alone() -> None:
    """A graph that a question to the host breaks off leaves the generator capturing, unless somebody mends that."""
    torch.manual_seed(0)
    method = METHODS["passion mmformer"]().train().cuda()
    recorder = CudaGraphs(torch.device("cuda"))

    def break_off(run: Callable[[], Any]) -> Any:
        def asks() -> Any:
            result = run()
            return result, float(torch.rand(1, device="cuda"))  # waits for the device

        return recorder(asks)

    captured = CapturedStep(method, total, recorder=break_off)
    losses = [captured(batch_of(0, [[True, True, False, True]]), "one").loss for _ in range(4)]
    assert captured.recorded == 0
    assert all(bool(loss.isfinite()) for loss in losses)


def test_students_computed_again_in_backward_stay_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmap_monai.methods.students.fastest_mode", lambda *_: StudentMode.CHECKPOINT)
    torch.manual_seed(0)
    method = METHODS["passion mmformer"]().train().cuda()
    captured = CapturedStep(method, total)
    losses = [captured(batch_of(seed, [[True, True, False, True]]), "one").loss for seed in range(3)]
    assert captured.recorded == 0
    assert all(bool(loss.isfinite()) for loss in losses)


def test_a_recorded_training_follows_an_eager_one(tmp_path: Path) -> None:
    runs = {}
    for steps in ("eager", "recorded"):
        trainer = tiny_trainer(tmp_path / steps, epochs=12, device="cuda", steps=steps)
        trainer.run()
        runs[steps] = trainer
    assert runs["eager"].captured is None
    assert runs["recorded"].captured is not None
    assert runs["recorded"].captured.recorded > 0
    for key, value in runs["eager"].method.state_dict().items():
        torch.testing.assert_close(runs["recorded"].method.state_dict()[key], value, rtol=5e-2, atol=5e-3)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_training_in_half_precision(tmp_path: Path, precision: str) -> None:
    trainer = tiny_trainer(tmp_path, epochs=4, device="cuda", precision=precision)
    trainer.run()
    assert trainer.captured is not None
    assert all(bool(p.isfinite().all()) for p in trainer.method.parameters())


def _rank(rank: int, world: int, backend: str, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", RANK=str(rank), WORLD_SIZE=str(world))
    torch.cuda.set_device(0)
    dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.manual_seed(0)
    method = small_method().train().cuda()
    wrapped = nn.parallel.DistributedDataParallel(method, device_ids=[0], broadcast_buffers=False)
    total(wrapped(**batch_of(rank, [[True, False, True, True]], size=16))).backward()
    method.on_epoch_end(0)
    state: list[Any] = [p.grad.cpu() for p in method.parameters()] + [method.balance.beta.cpu()]
    torch.save(state, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(("backend", "world"), [("nccl", 1), ("gloo", 1), ("gloo", 2)])
def test_processes_agree(backend: str, world: int) -> None:
    """Two processes may share one GPU with gloo; nccl refuses that, so it is tried with one."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (world, backend, folder), nprocs=world)
        states = [torch.load(f"{folder}/{rank}.pt") for rank in range(world)]
    for state in states[1:]:
        for one, other in zip(states[0], state, strict=True):
            torch.testing.assert_close(one, other)
    assert all(bool(tensor.isfinite().all()) for tensor in states[0])
