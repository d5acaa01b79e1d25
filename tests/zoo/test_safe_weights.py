from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medmap_monai.zoo.safe_weights import UnsafeFileError, read_state_dict, refuse_code


class RunsCode:
    """Unpickling this object makes a file, so a test sees whether it happened."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


def test_reads_a_state_dict(tmp_path: Path) -> None:
    state = nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "model.pt")
    read = read_state_dict(tmp_path / "model.pt")
    assert set(read) == set(state)
    assert all(torch.equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "method": {}}, "epoch, method"),
        ({"model": {"w": torch.zeros(1)}}, "model"),
        ({}, "not the weights"),
        (torch.zeros(2), "Tensor"),
    ],
)
def test_only_weights_alone_count(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "innocent.json", "data.bin"])
@pytest.mark.parametrize("how", ["torch", "torch legacy", "pickle"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, name: str, how: str) -> None:
    witness = tmp_path / "code has run"
    content = {"w": torch.zeros(1), "x": RunsCode(witness)}
    if how == "pickle":
        (tmp_path / name).write_bytes(pickle.dumps({"x": RunsCode(witness)}))
    else:
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(UnsafeFileError, match=name):
        refuse_code(tmp_path / name)
    assert not witness.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_are_refused_by_their_name(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1, 2], protocol))
    with pytest.raises(UnsafeFileError, match="pickle"):
        refuse_code(tmp_path / "x.pkl")


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(UnsafeFileError, match=r"torch\.load\(weights_only=True\) refuses"):
        refuse_code(tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore")
def test_harmless_files_pass(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "model.pt")
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "model.ts")
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "README.md").write_text("text")
    (tmp_path / "empty").write_bytes(b"")
    for file in tmp_path.iterdir():
        refuse_code(file)


def test_what_is_not_recognised_as_safe_is_refused(tmp_path: Path) -> None:
    """A pickle as text under any name, an array of objects, a pickle in front of an archive, an unknown kind."""
    witness = tmp_path / "code has run"
    harmful = RunsCode(witness)
    (tmp_path / "weights.dat").write_bytes(pickle.dumps(harmful, protocol=0))
    (tmp_path / "notes.md").write_bytes(pickle.dumps(harmful, protocol=0))
    (tmp_path / "LICENSE").write_bytes(pickle.dumps({"a": harmful}, protocol=1))
    np.save(tmp_path / "table.npy", np.array([harmful], dtype=object), allow_pickle=True)
    torch.save({"w": torch.zeros(2)}, tmp_path / "good.pt")
    for name in ("polyglot.pt", "polyglot.ts", "polyglot.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(harmful, protocol=0) + (tmp_path / "good.pt").read_bytes())
    (tmp_path / "library.so").write_bytes(b"\x7fELF")
    (tmp_path / "picture.png").write_bytes(b"no picture")
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    (tmp_path / "broken.json").write_text("{")
    for path in sorted(tmp_path.iterdir()):
        if path.name != "good.pt":
            with pytest.raises(UnsafeFileError, match=path.name.replace(".", r"\.")):
                refuse_code(path)
    refuse_code(tmp_path / "good.pt")
    assert not witness.exists()


def test_what_bundles_hold_passes(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "values.yaml").write_text("a: 1\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    (tmp_path / ".gitkeep").write_bytes(b"")
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "model.ts")
    for path in tmp_path.iterdir():
        refuse_code(path)
    for path in (Path(__file__).parents[2] / "bundles" / "brats_unet_dropout").rglob("*"):
        if path.is_file() and "models" not in path.parts:
            refuse_code(path)
