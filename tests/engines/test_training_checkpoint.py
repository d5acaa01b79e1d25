from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from medmap_monai.engines.training_checkpoint import load_model
from tests.engines.training import tiny_trainer, tiny_unet


class Stop(Exception):
    """Stands for a kill between two iterations."""


class StopAt:
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: object) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)  # type: ignore[attr-defined]

    def __call__(self, engine: object) -> None:
        if engine.state.iteration == self.iteration:  # type: ignore[attr-defined]
            raise Stop


@pytest.mark.parametrize("iteration", [4, 6, 8])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, iteration: int) -> None:
    whole = tiny_trainer(tmp_path / "whole", epochs=4)
    whole.run()
    with pytest.raises(Stop):
        tiny_trainer(tmp_path / "cut", epochs=4, handlers=(StopAt(iteration),)).run()
    torch.rand(100)  # whatever happened in between must not matter
    resumed = tiny_trainer(tmp_path / "cut", epochs=4)
    resumed.run()
    assert resumed.state.iteration == whole.state.iteration == 12
    for key, value in whole.method.network.state_dict().items():
        assert torch.equal(value, resumed.method.network.state_dict()[key]), key
    whole_steps = whole.optimizer.state_dict()["state"]
    for number, state in resumed.optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(whole_steps[number][name]))
    assert (tmp_path / "cut/training.csv").read_bytes() == (tmp_path / "whole/training.csv").read_bytes()


def test_resume_false_starts_anew(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, epochs=2).run()
    trainer = tiny_trainer(tmp_path, epochs=2, checkpoint={"resume": False})
    trainer.run()
    assert trainer.state.iteration == 6
    assert (tmp_path / "training.csv").read_text().count("learning_rate") == 2


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, epochs=2).run()
    again = tiny_trainer(tmp_path, epochs=2, make_method=_failing_method)
    again.run()
    assert again.state.epoch == 2


def _failing_method(network):  # type: ignore[no-untyped-def]
    from tests.engines.training import tiny_method

    method = tiny_method(network)
    method.on_epoch_start = lambda epoch: pytest.fail("a finished run must not train")  # type: ignore[method-assign]
    return method


def test_other_number_of_epochs_is_refused(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, epochs=2).run()
    with pytest.raises(ValueError, match="belongs to a run of 2 epochs, this one has 3"):
        tiny_trainer(tmp_path, epochs=3).run()


def test_checkpoints_are_plain_tensors_and_model_holds_the_network_alone(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, epochs=1)
    trainer.run()
    torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    fresh = load_model(tiny_unet(), tmp_path / "model.pt")
    for key, value in trainer.method.network.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value)
    assert not list(tmp_path.glob(".tmp-*"))


_KILL = """
import os, sys, torch
from pathlib import Path
from tests.engines.training import tiny_trainer
folder = Path(sys.argv[1])
write = torch.save
saves = 0
def dying(content, path):
    global saves
    saves += 1
    write(content, path)
    if saves == 4:  # in the middle of the second epoch's checkpoint: bytes are there, the final name is not
        with open(path, "r+b") as file:
            file.truncate(100)
        os.kill(os.getpid(), 9)
torch.save = dying
tiny_trainer(folder, epochs=3).run()
"""


def test_a_kill_while_writing_leaves_the_last_complete_files(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILL, str(tmp_path)], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -9
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["epoch"] == 1
    load_model(tiny_unet(), tmp_path / "model.pt")
    resumed = tiny_trainer(tmp_path, epochs=3)
    resumed.run()
    whole = tiny_trainer(tmp_path / "whole", epochs=3)
    whole.run()
    for key, value in whole.method.network.state_dict().items():
        assert torch.equal(value, resumed.method.network.state_dict()[key]), key


def test_weights_that_do_not_fit_name_the_file_and_the_key(tmp_path: Path) -> None:
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"(?s)model\.pt does not fit the network.*head\.weight"):
        load_model(tiny_unet(), tmp_path / "model.pt")


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    torch.save(tiny_unet().state_dict(), tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"model\.pt is not a checkpoint of plain tensors"):
        load_model(tiny_unet(), tmp_path / "model.pt")


def test_absent_weights_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train the bundle first"):
        load_model(tiny_unet(), tmp_path / "model.pt")
