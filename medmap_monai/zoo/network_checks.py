"""Checks of a bundle's network: input and output, weights, exports equal to eager execution."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import torch
from monai.utils.type_conversion import get_equivalent_dtype
from torch import Tensor, nn

from medmap_monai.engines.training_checkpoint import load_model
from medmap_monai.zoo.bundle_folder import BundleFolder, smallest_shape
from medmap_monai.zoo.export import FORMATS, export_onnx, export_torchscript, missing_packages, verify_export
from medmap_monai.zoo.outcome import fail, skip
from medmap_monai.zoo.safe_weights import read_state_dict


def network_in_out(bundle: BundleFolder) -> str:
    """The network takes and gives what the metadata say, and any single modality gives finite numbers."""
    formats = bundle.metadata["network_data_format"]
    pred = formats["outputs"]["pred"]
    image = bundle.example_input()
    wanted = (1, int(pred["num_channels"]), *smallest_shape(pred["spatial_shape"]))
    only_first = image.clone()
    only_first[:, 1:] = 0
    with torch.no_grad():
        for example in (image, only_first):
            found = bundle.network(example)
            if not isinstance(found, Tensor):
                fail(f"the network returns a {type(found).__name__}, not one tensor")
            if tuple(found.shape) != wanted:
                fail(f"input {list(image.shape)} gives {list(found.shape)}, metadata say {list(wanted)}")
            if found.dtype != get_equivalent_dtype(pred["dtype"], Tensor):
                fail(f"output is {found.dtype}, metadata say {pred['dtype']}")
            if not bool(torch.isfinite(found).all()):
                fail("output is not finite")
    return f"{list(image.shape)} -> {list(wanted)}"


def weights(bundle: BundleFolder) -> str:
    """models/model.pt holds tensors alone, and exactly those that the network has."""
    state = bundle.network.state_dict()
    size = f"{sum(v.numel() for v in state.values()) / 1e6:.1f} M numbers"
    if bundle.weights_file.is_file():
        try:
            read_state_dict(bundle.weights_file)
            load_model(bundle.network, bundle.weights_file)
        except ValueError as error:
            fail(" ".join(str(error).split())[:400])
        return f"models/model.pt, {size}"
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    bundle.network.load_state_dict(torch.load(stream, weights_only=True))
    return f"random weights, {size}"


def torchscript(bundle: BundleFolder) -> str:
    """TorchScript equals eager execution."""
    return _export(bundle, "torchscript")


def onnx(bundle: BundleFolder) -> str:
    """ONNX Runtime equals eager execution."""
    return _export(bundle, "onnx")


def _export(bundle: BundleFolder, file_format: str) -> str:
    declared = bundle.metadata.get("unsupported_exports", {})
    if file_format in declared:
        skip(f"declared as not supported: {declared[file_format]}")
    missing = missing_packages(file_format)
    if missing:
        skip(f"not installed: {', '.join(missing)}")
    network = _loaded(bundle)
    image = bundle.example_input()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FORMATS[file_format]
        if file_format == "onnx":
            export_onnx(network, path, image)
        else:
            export_torchscript(network, path)
        return f"differs by at most {verify_export(file_format, path, network, image):.1g} of the largest logit"


def _loaded(bundle: BundleFolder) -> nn.Module:
    if bundle.weights_file.is_file():
        try:
            return load_model(bundle.network, bundle.weights_file)
        except ValueError:
            skip("the weights do not load")
    return bundle.network
