"""PASSION in the trainer: resume, the balance log, and two processes against one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from medmap_monai.engines.balance_logging import BalanceLog, read_balance_log
from medmap_monai.methods.passion import Passion
from medmap_monai.methods.preference_balance import PreferenceBalance
from medmap_monai.networks.base import ModalityNetwork
from tests.engines.training import tiny_trainer
from tests.methods.passion_cases import batch, make, total

NAMES = ("flair", "t1ce", "t2")


class Interrupted(Exception):
    """Stands for a kill between two iterations."""


class StopAt:
    """Raises after an iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        if engine.state.iteration == self.iteration:
            raise Interrupted


class LateLog:
    """A balance log whose method is known only once the trainer exists."""

    def __init__(self, path: Path, writer: Any = None) -> None:
        self.path = path
        self.writer = writer

    def attach(self, engine: Any) -> None:
        BalanceLog(self.path, engine.method, NAMES, self.writer).attach(engine)


class Writer:
    """Records what TensorBoard would get."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))


def passion(network: ModalityNetwork) -> Passion:
    balance = PreferenceBalance(3, eta=0.2, eta_interval=2)
    return Passion(network, "idt_drop", modality_weight=[1.0, 2.0, 3.0], balance=balance, unimodal="student")


def run(folder: Path, epochs: int = 4, stop: int | None = None, writer: Any = None) -> Any:
    handlers: tuple[Any, ...] = (LateLog(folder / "balance.csv", writer),)
    if stop is not None:
        handlers += (StopAt(stop),)
    trainer = tiny_trainer(folder, epochs=epochs, make_method=passion, handlers=handlers)
    trainer.run()
    return trainer


@pytest.mark.parametrize("iteration", [5, 6, 8])
def test_a_resumed_run_has_the_same_beta_weights_and_log(tmp_path: Path, iteration: int) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", stop=iteration)
    torch.rand(50)
    resumed = run(tmp_path / "cut")
    assert resumed.state.iteration == whole.state.iteration == 12
    for key, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[key]) or value.isnan().any(), key
    assert not torch.equal(whole.method.balance.beta, torch.ones(3))
    assert (tmp_path / "cut/balance.csv").read_bytes() == (tmp_path / "whole/balance.csv").read_bytes()


def test_the_log_holds_every_value_by_name(tmp_path: Path) -> None:
    writer = Writer()
    trainer = run(tmp_path, epochs=2, writer=writer)
    rows = read_balance_log(tmp_path / "balance.csv")
    names = {name for _, name, _, _ in rows}
    expected = {"pixel", "prototype", "distance", "preference", "gate", "unimodal"}
    assert names == expected | {"beta", "eta", "relative_preference", "epoch_distance"}
    assert {epoch for epoch, *_ in rows} == {1, 2}
    beta = {modality: float(value) for epoch, name, modality, value in rows if (epoch, name) == (2, "beta")}
    assert list(beta) == list(NAMES)
    torch.testing.assert_close(torch.tensor(list(beta.values())), trainer.method.balance.beta, rtol=1e-6, atol=0)
    eta = [float(value) for _, name, modality, value in rows if (name, modality) == ("eta", "")]
    assert eta == pytest.approx([0.3, 0.3], rel=1e-6)
    tags = [(f"balance/{name}/{modality}".rstrip("/"), epoch) for epoch, name, modality, _ in rows]
    assert tags == [(tag, step) for tag, _, step in writer.scalars]


def test_a_new_run_in_an_old_folder_starts_a_new_log(tmp_path: Path) -> None:
    (tmp_path / "balance.csv").write_text("epoch,name,modality,value\n7,beta,flair,9\n")
    run(tmp_path, epochs=1)
    assert {epoch for epoch, *_ in read_balance_log(tmp_path / "balance.csv")} == {1}


def test_other_tables_are_not_read_as_a_balance_log(tmp_path: Path) -> None:
    (tmp_path / "training.csv").write_text("epoch,name,value\n1,loss,2\n")
    with pytest.raises(ValueError, match=r"training.csv has columns \['epoch', 'name', 'value'\]"):
        read_balance_log(tmp_path / "training.csv")
    with pytest.raises(ValueError, match="the network has 3 modalities, the log 2"):
        BalanceLog(tmp_path / "balance.csv", make(), ("flair", "t2"))


STEPS = (("111 001", None), ("110 111", None), ("100 010", None))


def train(method: Passion, wrapped: torch.nn.Module, rank: int | None) -> dict[str, Tensor]:
    """Two epochs on the same batches: all rows at once, or the rank's own row of each."""
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    for epoch in range(2):
        method.on_epoch_start(epoch)
        for present, visible in STEPS:
            inputs = batch(present, visible)
            if rank is not None:
                inputs = tuple(t[rank : rank + 1] for t in inputs)  # type: ignore[assignment]
            optimizer.zero_grad()
            total(wrapped(*inputs).losses).backward()
            optimizer.step()
        method.on_epoch_end(epoch)
    return method.state_dict()


def train_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    method = make("rfnet", balance=PreferenceBalance(3, eta=0.2))
    # no find_unused_parameters: every parameter must take part in every step
    wrapped = DistributedDataParallel(method, broadcast_buffers=False)
    torch.save(train(method, wrapped, rank), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_beta_of_one_on_the_same_batches(tmp_path: Path) -> None:
    method = make("rfnet", balance=PreferenceBalance(3, eta=0.2))
    alone = train(method, method, None)
    spawn(train_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert not torch.equal(alone["balance.beta"], torch.ones(3))
    for key, value in alone.items():
        assert torch.equal(ranks[0][key], ranks[1][key]), key
        torch.testing.assert_close(ranks[0][key], value, rtol=1e-3, atol=1e-5, msg=key)
    torch.testing.assert_close(ranks[0]["balance.beta"], alone["balance.beta"], rtol=0, atol=1e-6)


def test_the_log_is_plain_csv(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    with (tmp_path / "balance.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["epoch", "name", "modality", "value"]
