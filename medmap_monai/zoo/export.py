"""A bundle's network as TorchScript and ONNX files: reproducible, free of the exporting machine's paths, verified."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from monai.networks.utils import convert_to_onnx
from torch import Tensor, nn

from medmap_monai.utils.files import atomic_path

#: export format -> file in ``models``
FORMATS = {"torchscript": "model.ts", "onnx": "model.onnx"}
_NEEDS: dict[str, tuple[str, ...]] = {"torchscript": (), "onnx": ("onnx", "onnxscript", "onnxruntime")}
# Of the largest logit. Eager execution and the exports sum in different orders (memory layouts, fused operators), and
# with random weights either is up to 1.5e-4 of the largest logit away from float64 arithmetic (measured on mmFormer).
_TOLERANCE = 1e-3


class ExportError(RuntimeError):
    """A network could not be exported, or the export computes something else."""


def missing_packages(file_format: str) -> list[str]:
    """Packages that exporting to ``file_format`` needs and that are not installed."""
    return [name for name in _NEEDS[file_format] if importlib.util.find_spec(name) is None]


def export_torchscript(
    network: nn.Module, path: str | os.PathLike[str], extra: Mapping[str, str] | None = None
) -> None:
    """Script ``network`` and save it as ``path``; ``forward`` keeps its optional arguments.

    Source locations, which name folders of this machine, are left out. Names of repeated types are numbered in the
    order in which a process scripts them, so only exports from fresh processes are equal byte by byte; see
    :func:`export_bundle`.

    Args:
        network: any scriptable module.
        path: the file, by MONAI's convention ``models/model.ts``.
        extra: texts to keep in the file by name, as ``monai.data.load_net_with_metadata`` reads them.
    """
    content = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        script = torch.jit.script(network.eval())
        torch.jit.save(script, content, {name: text.encode() for name, text in (extra or {}).items()})
    with atomic_path(path) as temporary, zipfile.ZipFile(content) as source, zipfile.ZipFile(temporary, "w") as target:
        for member in source.infolist():
            if not member.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(member.filename), source.read(member))  # stored, dated 1980


def export_onnx(network: nn.Module, path: str | os.PathLike[str], image: Tensor) -> None:
    """Save ``network`` as an ONNX graph ``(image, modality_mask) -> pred`` for images of one shape.

    The mask is an input of its own, since a window of background looks like an absent modality. Stack traces, which
    name folders of this machine, are left out, and all weights lie in the one file.

    Args:
        network: ``network(image, modality_mask)``.
        path: the file, by convention ``models/model.onnx``.
        image: an example (1, M, ...) of the shape that the graph will take.
    """
    mask = torch.ones(image.shape[:2], dtype=torch.bool)
    with _silence(), atomic_path(path) as temporary:
        graph = convert_to_onnx(
            network.eval(),
            [image, mask],
            input_names=["image", "modality_mask"],
            output_names=["pred"],
            filename=str(temporary),
            use_trace=True,
            external_data=False,
            verbose=False,
        )
        parts = graph.graph
        for part in (graph, parts, *parts.node, *parts.value_info, *parts.input, *parts.output, *parts.initializer):
            del part.metadata_props[:]
            part.doc_string = ""
        temporary.write_bytes(graph.SerializeToString(deterministic=True))


def verify_export(file_format: str, path: str | os.PathLike[str], network: nn.Module, image: Tensor) -> float:
    """Compare an exported file with eager execution, for all modalities and for the first one alone.

    Returns:
        the largest difference, as a share of the largest logit.

    Raises:
        ExportError: when they differ.
    """
    alone = torch.zeros(image.shape[:2], dtype=torch.bool)
    alone[:, 0] = True
    run = _reader(file_format, path)
    largest = 0.0
    # the optimiser of TorchScript takes up to 20 times as long as one call
    with torch.no_grad(), torch.jit.optimized_execution(False):
        for mask in (torch.ones_like(alone), alone):
            expected, found = network(image, mask), run(image, mask)
            if found.shape != expected.shape or found.dtype != expected.dtype:
                raise ExportError(
                    f"{file_format} gives {found.dtype} {list(found.shape)}, "
                    f"eager execution {expected.dtype} {list(expected.shape)}"
                )
            share = float((found - expected).abs().max() / expected.abs().max())
            if not share <= _TOLERANCE:  # NaN is no agreement
                raise ExportError(
                    f"{file_format} differs from eager execution by {share:.2g} of the largest logit "
                    f"(allowed {_TOLERANCE:g})"
                )
            largest = max(largest, share)
    return largest


def export_bundle(bundle: str | os.PathLike[str], formats: Sequence[str]) -> None:
    """Write the exports of a bundle with weights into its ``models``, verified, in a process of their own.

    The process makes the files equal byte by byte, whatever this one scripted before. ONNX gets the window of the
    inference configuration (``roi_size``); TorchScript takes any size.

    Raises:
        ExportError: with the reason.
    """
    command = [sys.executable, "-m", "medmap_monai.zoo.export", os.fspath(bundle), *formats]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # TorchScript writes constants in the order of a set
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise ExportError(lines[-1] if lines else f"export of {formats} ended with code {done.returncode}")


def _export_here(folder: str, formats: Sequence[str]) -> None:
    from medmap_monai.engines.training_checkpoint import load_model
    from medmap_monai.zoo.bundle_folder import BundleFolder

    bundle = BundleFolder(folder)
    network = load_model(bundle.build_network(), bundle.weights_file)
    image = bundle.example_input()
    for file_format in formats:
        path = bundle.root / "models" / FORMATS[file_format]
        if file_format == "onnx":
            image = _window(bundle.parser([bundle.required_config("inference")]), image)
            export_onnx(network, path, image)
        else:
            configuration = bundle.required_config("inference").read_text(encoding="utf-8")
            export_torchscript(
                network, path, {"metadata.json": json.dumps(bundle.metadata), "inference.json": configuration}
            )
        verify_export(file_format, path, network, image)


def _window(parser: Any, example: Tensor) -> Tensor:
    """A random image of the window that inference uses, or ``example`` where the configuration names none."""
    roi = parser.get_parsed_content("roi_size") if "roi_size" in parser else None
    if not isinstance(roi, (list, tuple)) or any(int(n) < 1 for n in roi) or len(roi) != example.ndim - 2:
        return example
    return torch.rand((*example.shape[:2], *map(int, roi)), generator=torch.Generator().manual_seed(0))


def _reader(file_format: str, path: str | os.PathLike[str]) -> Any:
    if file_format == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.load(os.fspath(path), map_location="cpu").eval()
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])

    def run(image: Tensor, mask: Tensor) -> Tensor:
        return torch.as_tensor(session.run(["pred"], {"image": image.numpy(), "modality_mask": mask.numpy()})[0])

    return run


@contextmanager
def _silence() -> Iterator[None]:
    """Without the exporter's progress lines."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the process that :func:`export_bundle` starts."""
    parser = argparse.ArgumentParser(description="Export a bundle's network into its folder 'models'.")
    parser.add_argument("bundle")
    parser.add_argument("formats", nargs="+", choices=list(FORMATS))
    given = parser.parse_args(arguments)
    try:
        _export_here(given.bundle, given.formats)
    except Exception as error:  # the parent process shows the last line
        print(" ".join(f"{type(error).__name__}: {error}".split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
