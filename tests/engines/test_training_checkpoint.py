from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events, State

from medmap_monai.data.study import Study
from medmap_monai.data.training_cases import (
    TrainingCases,
    read_training_cases,
    training_cases_of,
    write_training_cases,
)
from medmap_monai.engines.finite_guard import TrainingDivergedError
from medmap_monai.engines.training_checkpoint import TrainingCheckpoint, load_model
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


def rates(folder: Path) -> list[float]:
    with (folder / "training.csv").open(newline="") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "learning_rate"]


def test_a_finished_run_goes_on_with_more_epochs(tmp_path: Path) -> None:
    tiny_trainer(tmp_path / "more", epochs=2).run()
    assert torch.load(tmp_path / "more/checkpoint.pt", weights_only=True)["optimizer"]["param_groups"][0]["lr"] == 0.0
    before = load_model(tiny_unet(), tmp_path / "more/model.pt").state_dict()
    longer = tiny_trainer(tmp_path / "more", epochs=5)
    longer.run()
    assert longer.state.iteration == 15
    assert any(not torch.equal(value, before[key]) for key, value in longer.method.network.state_dict().items())
    tiny_trainer(tmp_path / "whole", epochs=5).run()
    assert rates(tmp_path / "more")[2:] == pytest.approx(rates(tmp_path / "whole")[2:])
    tiny_trainer(tmp_path / "more", epochs=5).run()  # finished again, and resumed as ever
    with pytest.raises(ValueError, match="trained for 5 epochs already, 3 are asked for"):
        tiny_trainer(tmp_path / "more", epochs=3).run()


@pytest.mark.parametrize(("before", "now"), [(2, 6), (6, 2)])
def test_a_run_goes_on_to_its_last_epoch_whatever_an_epoch_holds_now(tmp_path: Path, before: int, now: int) -> None:
    """ignite counts iterations: with fewer per epoch than before it would end at once, without a word."""
    tiny_trainer(tmp_path, epochs=2, batch_size=before).run()
    resumed = tiny_trainer(tmp_path, epochs=4, batch_size=now)
    resumed.run()
    assert resumed.state.epoch == 4
    assert resumed.state.iteration == 4 * 6 // now
    assert len(rates(tmp_path)) == 4


def test_another_learning_rate_is_taken_over(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        tiny_trainer(tmp_path / "cut", epochs=4, handlers=(StopAt(7),)).run()
    tiny_trainer(tmp_path / "cut", epochs=4, learning_rate=0.1).run()
    tiny_trainer(tmp_path / "whole", epochs=4, learning_rate=0.1).run()
    assert rates(tmp_path / "cut")[2:] == pytest.approx(rates(tmp_path / "whole")[2:])


class Validator:
    """Stands for an evaluator with a score per epoch; None where it does not run."""

    def __init__(self, *scores: float | None) -> None:
        self.scores = scores
        self.state = State()
        self.state.key_metric_name, self.state.best_metric_epoch = "dice", -1  # type: ignore[attr-defined]
        self.state.metrics = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._score)

    def _score(self, engine: Engine) -> None:
        score = self.scores[engine.state.epoch - 1]
        self.state.metrics = {} if score is None else {"dice": score}


def best_of(folder: Path, epochs: int, *scores: float | None, select: str = "best") -> float:
    """Train, and tell what was left in model.pt by the sum of its weights."""
    validator = Validator(*scores)
    given = {"select": select, "validator": validator}
    tiny_trainer(folder, epochs=epochs, first=(validator,), checkpoint=given).run()
    return sum(float(value.sum()) for value in torch.load(folder / "model.pt", weights_only=True).values())


def test_weights_are_left_where_no_epoch_was_validated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    last = best_of(tmp_path / "last", 2, None, None, select="last")
    assert best_of(tmp_path / "best", 2, None, None) == last
    assert "no epoch was validated" in caplog.text


def test_the_best_of_epochs_without_selection_is_not_taken_for_the_best_weights(tmp_path: Path) -> None:
    before = best_of(tmp_path, 2, 0.9, 0.1, select="last")  # epoch 1 was better, and its weights are gone
    assert best_of(tmp_path, 4, 0.9, 0.1, 0.5, 0.4) != before


def test_initial_weights_are_one_argument(tmp_path: Path) -> None:
    torch.manual_seed(9)
    state = tiny_unet().state_dict()
    torch.save(state, tmp_path / "other.pt")
    seen: list[bool] = []

    def look(engine: object) -> None:
        found = engine.method.network.state_dict()  # type: ignore[attr-defined]
        seen.append(all(torch.equal(value, found[key]) for key, value in state.items()))

    given = {"initial_weights": tmp_path / "other.pt"}
    trainer = tiny_trainer(tmp_path, epochs=1, checkpoint=given)
    trainer.add_event_handler(Events.EPOCH_STARTED, look)
    trainer.run()
    resumed = tiny_trainer(tmp_path, epochs=2, checkpoint=given)  # what was trained comes before them
    resumed.add_event_handler(Events.EPOCH_STARTED, look)
    resumed.run()
    assert seen == [True, False]


def test_weights_that_came_from_elsewhere_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(tiny_unet().state_dict(), tmp_path / "model.pt")
    write_training_cases(tmp_path / "model.pt", TrainingCases({"a": "a"}, {}))
    shipped = (tmp_path / "model.pt").read_bytes()
    tiny_trainer(tmp_path, epochs=1).run()
    assert "kept as model_before_training.pt" in caplog.text
    for _ in range(2):  # and stay so, whatever is trained here later
        assert (tmp_path / "model_before_training.pt").read_bytes() == shipped
        assert read_training_cases(tmp_path / "model_before_training.pt") == TrainingCases({"a": "a"}, {})
        tiny_trainer(tmp_path, epochs=1, checkpoint={"resume": False}).run()
    tiny_trainer(tmp_path / "fresh", epochs=1).run()
    assert not (tmp_path / "fresh/model_before_training.pt").exists()


def test_initial_weights_reach_the_trained_network_where_its_average_is_deployed(tmp_path: Path) -> None:
    state = tiny_unet().state_dict()
    torch.save(state, tmp_path / "other.pt")
    average = tiny_unet()
    trainer = tiny_trainer(tmp_path, epochs=1)
    handler = TrainingCheckpoint(tmp_path, average, {"method": trainer.method}, initial_weights=tmp_path / "other.pt")
    handler._load(trainer)
    for network in (average, trainer.method.network):
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_weights_of_nan_are_not_saved(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, epochs=2).run()
    before = {name: (tmp_path / name).read_bytes() for name in ("checkpoint.pt", "model.pt")}

    def spoil(engine: object) -> None:
        next(engine.method.network.parameters()).data.fill_(float("nan"))  # type: ignore[attr-defined]

    trainer = tiny_trainer(tmp_path, epochs=3)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=9), spoil)  # the last step of the epoch
    with pytest.raises(TrainingDivergedError, match="after epoch 3 the weights hold NaN or Inf"):
        trainer.run()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_damaged_checkpoint_is_named_and_leftovers_are_cleared(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, epochs=1).run()
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    for content in (whole[:300], b"a text file\n", b""):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is not a checkpoint of plain tensors: .{0,200}$"):
            tiny_trainer(tmp_path, epochs=1).run()
    torch.save({"epoch": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"is no checkpoint of this run: it lacks .*'method'"):
        tiny_trainer(tmp_path, epochs=1).run()


def test_the_cases_of_the_training_stand_beside_the_weights(tmp_path: Path) -> None:
    records = [{"case_id": "BraTS-GLI-00005-100", "study": Study("BraTS-GLI-00005-100", {}, edition="brats2023")}]
    trainer = tiny_trainer(tmp_path, epochs=1)
    assert read_training_cases(tmp_path / "model.pt") is None
    trainer.run()
    assert read_training_cases(tmp_path / "model.pt") is None  # these items do not say their case
    cases = training_cases_of(records, [{"case_id": "b"}])
    write_training_cases(tmp_path / "model.pt", cases)
    found = read_training_cases(tmp_path / "model.pt")
    assert found == cases
    assert found is not None
    assert found.fold_of("BraTS-GLI-00005-101", "BraTS-GLI-00005") == "train"  # another time point
    assert [found.fold_of(case, case) for case in ("b", "c")] == ["val", "unseen"]
    tiny_trainer(tmp_path, epochs=2).run()
    assert read_training_cases(tmp_path / "model.pt") is None  # a file about other weights tells nothing


def test_cases_of_earlier_epochs_and_of_initial_weights_stay_with_the_weights(tmp_path: Path) -> None:
    def train(folder: Path, epochs: int, cases: str, val: str, **checkpoint: object) -> TrainingCases | None:
        validator = Validator(*[None] * epochs)
        validator.data_loader = SimpleNamespace(  # type: ignore[attr-defined]
            dataset=SimpleNamespace(data=[{"case_id": case} for case in val])
        )
        trainer = tiny_trainer(folder, epochs=epochs, checkpoint={"validator": validator, **checkpoint})
        for item, case in zip(trainer.data_loader.dataset.data, cases, strict=False):  # type: ignore[union-attr]
            item["case_id"] = case
        trainer.run()
        return read_training_cases(folder / "model.pt")

    train(tmp_path / "one", 1, "abcdef", "xy")
    resumed = train(tmp_path / "one", 2, "abghix", "yc")
    assert resumed is not None
    assert (set(resumed.train), set(resumed.val)) == (set("abcdefghix"), {"y"})
    fresh = train(tmp_path / "two", 1, "klmnop", "x", initial_weights=tmp_path / "one/model.pt")
    assert fresh is not None
    assert set(fresh.train) == set("abcdefghixklmnop")


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
