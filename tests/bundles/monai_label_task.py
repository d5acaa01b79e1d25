"""Run MONAI Label's own task classes; a script of its own, as its packages are not this project's.

monai_label_task.py infer BUNDLE IMAGE             prints the label map that MONAI Label wrote
monai_label_task.py train BUNDLE IMAGE LABEL ...   one epoch over these images with their labels
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

if importlib.util.find_spec("torchvision") is None:  # MONAI Label imports two functions that draw thumbnails
    drawing = types.ModuleType("torchvision.utils")
    drawing.make_grid = drawing.save_image = None  # type: ignore[attr-defined]
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    sys.modules["torchvision.utils"] = drawing

from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask


class Annotated:
    """What a training task asks of a datastore: images with the labels that an annotator submitted."""

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def datalist(self) -> list[dict[str, Any]]:
        pairs = zip(self.files[::2], self.files[1::2], strict=True)
        return [{"image": image, "label": label, "meta": {"client_id": "reader"}} for image, label in pairs]


def infer(bundle: str, image: str) -> None:
    task = BundleInferTask(bundle, {})
    assert task.is_valid()
    print("RESULT", task({"image": image, "device": "cpu"})[0])


def train(bundle: str, *files: str) -> None:
    task = BundleTrainTask(bundle, {})
    assert task.is_valid()
    request = {"model": "medmap", "device": "cpu", "max_epochs": 1, "val_split": 0.5, "pretrained": True}
    task({**request, "multi_gpu": False, "tracking": "None"}, Annotated(list(files)))


if __name__ == "__main__":
    {"infer": infer, "train": train}[sys.argv[1]](*sys.argv[2:])
