"""A small bundle with weights, an evaluation of them, and a zoo that serves their package on the loopback address."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from medmap_monai.data.phantom import write_cohort
from medmap_monai.utils.bundle_workflow import open_workflow
from medmap_monai.zoo.index import write_index
from medmap_monai.zoo.pack import pack_bundle

NAME = "brats_unet_dropout"
BUNDLES = Path(__file__).parents[2] / "bundles"
SHAPE = [32, 32, 32]


def copy_bundle(target: Path, name: str = NAME) -> Path:
    """A bundle as it is in the repository, without what somebody trained in it."""
    ignored = shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "runs", "phantom", "data", "predictions", "evaluation")
    return Path(shutil.copytree(BUNDLES / name, target / name, ignore=ignored))


class QuietHandler(SimpleHTTPRequestHandler):
    """Serve files without a line on standard error for each."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(folder: Path, handler: type[SimpleHTTPRequestHandler] = QuietHandler) -> Iterator[str]:
    """URL under which ``folder`` is served by a real HTTP server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle without weights that a test may change."""
    return copy_bundle(tmp_path)


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantom studies; the second has three modalities."""
    folder = tmp_path_factory.mktemp("studies") / "cohort"
    return write_cohort(folder, "brats2020", cases=2, shape=SHAPE, absent={"2": ["t1"]})


@pytest.fixture(scope="session")
def trained(random_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with (random) weights of the network of its phantom overlay."""
    root = copy_bundle(tmp_path_factory.mktemp("trained"))
    shutil.copyfile(random_weights, root / "models" / "model.pt")
    return root


@pytest.fixture(scope="session")
def summary(trained: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``summary.json`` of a real evaluation of ``trained``."""
    output = tmp_path_factory.mktemp("evaluation")
    run(trained, "evaluate", ["phantom"], studies, output)
    return output / "summary.json"


@pytest.fixture(scope="session")
def package(trained: Path, summary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of ``trained`` with its evaluation and TorchScript."""
    output = tmp_path_factory.mktemp("zoo")
    return pack_bundle(trained, trained / "models" / "model.pt", output, ["torchscript"], summary, "phantom")


@pytest.fixture
def zoo(package: Path, tmp_path: Path) -> Path:
    """A folder that holds ``package`` and its index, which a test may change."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    for file in (package, package.with_name(package.name + ".sha256")):
        shutil.copyfile(file, folder / file.name)
    write_index(folder)
    return folder


@pytest.fixture
def server(zoo: Path) -> Iterator[str]:
    """``zoo`` behind an HTTP server."""
    yield from serve(zoo)


def run(bundle: Path, config: str, overlays: list[str], studies: Path, output: Path) -> None:
    """Run a configuration of a bundle on ``studies``, on the CPU with a small window."""
    given = {"dataset_dir": str(studies), "output_dir": str(output), "device": "cpu", "roi_size": SHAPE}
    open_workflow(bundle, config, overlays, given).run()
