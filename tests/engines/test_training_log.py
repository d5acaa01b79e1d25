from __future__ import annotations

import csv
from pathlib import Path

import pytest
from ignite.engine import Events

from tests.engines.training import tiny_trainer


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "training.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_epoch_means_of_every_loss(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, epochs=2)
    seen: list[tuple[int, float, float]] = []

    def note(engine: object) -> None:
        output = engine.state.output  # type: ignore[attr-defined]
        seen.append((engine.state.epoch, output["loss"].item(), float(output["losses"]["fused"])))  # type: ignore[attr-defined]

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    rows = {(int(r["epoch"]), r["name"]): float(r["value"]) for r in read(tmp_path)}
    assert {name for _, name in rows} == {"loss", "loss_fused", "loss_modality", "learning_rate"}
    for epoch in (1, 2):
        of_epoch = [s for s in seen if s[0] == epoch]
        assert rows[epoch, "loss"] == pytest.approx(sum(s[1] for s in of_epoch) / 3, rel=1e-5)
        assert rows[epoch, "loss_fused"] == pytest.approx(sum(s[2] for s in of_epoch) / 3, rel=1e-5)
    assert rows[1, "learning_rate"] == pytest.approx(1e-2)
    assert rows[2, "learning_rate"] == pytest.approx(1e-2 * 0.5**0.9)
