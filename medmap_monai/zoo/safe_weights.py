"""Weights that are tensors and nothing else: reading them, and refusing files that would run code when opened."""

from __future__ import annotations

import os
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medmap_monai.utils.json_file import parse_json

_ZIP = b"PK\x03\x04"
_LONGEST_TEXT_PICKLE = 32 << 20  # longer ones are read as binary, which begin with their protocol
#: endings of text
_TEXT_SUFFIXES = frozenset(
    (".json", ".yaml", ".yml", ".md", ".txt", ".rst", ".conf", ".cfg", ".ini", ".toml", ".csv", ".tsv", ".py", ".svg")
)
_TEXT_NAMES = frozenset(("LICENSE", "NOTICE", "README", ".gitkeep", ".gitignore"))
#: ending -> how such a file begins: (offset, bytes), any of them
_MAGIC: dict[str, tuple[tuple[int, bytes], ...]] = {
    ".png": ((0, b"\x89PNG\r\n\x1a\n"),),
    ".jpg": ((0, b"\xff\xd8\xff"),),
    ".jpeg": ((0, b"\xff\xd8\xff"),),
    ".gif": ((0, b"GIF8"),),
    ".onnx": ((0, b"\x08"),),  # field 1 of a ModelProto, its version
    ".safetensors": ((8, b"{"),),
    ".nii": ((0, b"\x5c\x01\x00\x00"), (0, b"\x00\x00\x01\x5c")),
    ".nii.gz": ((0, b"\x1f\x8b"),),
}
#: endings of torch's files, which can be read as tensors alone
_TORCH_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".tar"})


class UnsafeFileError(ValueError):
    """A file that can only be read by running code that it holds."""


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of ``model.pt`` by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no flat state dict: a training checkpoint, or nothing that torch reads.
        UnsafeFileError: reading it would need unpickling of code.
    """
    file = Path(path)
    content = _load_tensors(file)
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)] if _is_dict(content) else []
    if not _is_dict(content) or others or not content:
        held = f"it holds {', '.join(others[:6])}" if others else f"it is a {type(content).__name__}"
        raise ValueError(f"{file} is not the weights of a network alone ({held}); give the model.pt of a training")
    return content


def refuse_code(path: str | os.PathLike[str]) -> None:
    """Raise unless ``path`` is of a kind that is known to hold no code that runs when it is opened.

    What is not recognised is refused. Recognised are, by name *and* content: text (configurations, documents,
    scripts, which nobody runs unasked), pictures, numpy arrays without objects, tensors in torch's format,
    TorchScript (its reader knows no Python objects), ONNX, safetensors and NIfTI. A pickle is refused under any name.

    Raises:
        UnsafeFileError: says which file and why.
    """
    file = Path(path)
    if file.stat().st_size == 0:
        return
    suffix = "".join(file.suffixes[-2:]).lower() if file.name.lower().endswith(".nii.gz") else file.suffix.lower()
    with file.open("rb") as stream:
        head = stream.read(16)
    zipped = zipfile.is_zipfile(file)
    if zipped and not head.startswith(_ZIP):
        raise UnsafeFileError(f"{file.name} is a zip archive that begins as something else")
    members = _zip_members(file)
    if suffix in _TORCH_SUFFIXES or any(re.search(r"(^|/)data\.pkl$", name) for name in members):
        if not any(re.search(r"(^|/)constants\.pkl$", name) for name in members):  # which TorchScript has
            _load_tensors(file)
        elif suffix not in _TORCH_SUFFIXES | {".ts"}:
            raise UnsafeFileError(f"{file.name} is a TorchScript archive, but not named as one")
    elif suffix in (".npy", ".npz"):
        _read_arrays(file)
    elif _is_pickle(file):
        raise UnsafeFileError(f"{file.name} is a pickle, which runs code when it is opened; weights must be tensors")
    elif suffix in _TEXT_SUFFIXES or file.name in _TEXT_NAMES:
        _require_text(file)
    elif suffix in _MAGIC:
        if not any(head[place:].startswith(magic) for place, magic in _MAGIC[suffix]):
            raise UnsafeFileError(f"{file.name} does not hold what its name says")
    else:
        raise UnsafeFileError(f"{file.name} is of no kind that is known to be safe to open")


def _is_pickle(file: Path) -> bool:
    """Whether the file is, or begins with, a pickle of any protocol; nothing of it is executed."""
    if file.stat().st_size > _LONGEST_TEXT_PICKLE and file.open("rb").read(1) != b"\x80":
        return False
    try:
        with file.open("rb") as stream:
            for opcode, _, _ in pickletools.genops(stream):
                if opcode.name == "STOP":
                    return True
    except Exception:  # genops raises many kinds on what is no pickle
        return False
    return False


def _read_arrays(file: Path) -> None:
    try:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            with content:
                for name in content.files:
                    _ = content[name]
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise UnsafeFileError(f"{file.name} does not hold plain arrays: {error}") from error


def _require_text(file: Path) -> None:
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnsafeFileError(f"{file.name} is named as text and is none") from None
    if "\0" in text:
        raise UnsafeFileError(f"{file.name} is named as text and holds binary data")
    if file.suffix.lower() == ".json":
        try:
            parse_json(text, file.name)
        except ValueError as error:
            raise UnsafeFileError(str(error)) from None


def _load_tensors(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"no weights at {file}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        reason = " ".join(str(error).split())
        unsupported = re.search(r"(?:Unsupported (?:global|operand|class)|GLOBAL|Can only) .*?(?=\.\s|$)", reason)
        raise UnsafeFileError(
            f"{file.name} is not a file of plain tensors: torch.load(weights_only=True) refuses it "
            f"({(unsupported[0] if unsupported else reason)[:200]})"
        ) from error


def _zip_members(file: Path) -> list[str]:
    if not zipfile.is_zipfile(file):
        return []
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def _is_dict(content: Any) -> bool:
    return isinstance(content, dict)
