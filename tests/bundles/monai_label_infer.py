"""Run MONAI Label's own inference task on one image; a script of its own, as its packages are not this project's.

Arguments: bundle, image. Prints the label map that MONAI Label wrote.
"""

from __future__ import annotations

import importlib.util
import sys
import types

if importlib.util.find_spec("torchvision") is None:  # MONAI Label imports two functions that draw thumbnails
    drawing = types.ModuleType("torchvision.utils")
    drawing.make_grid = drawing.save_image = None  # type: ignore[attr-defined]
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    sys.modules["torchvision.utils"] = drawing

from monailabel.tasks.infer.bundle import BundleInferTask

if __name__ == "__main__":
    bundle, image = sys.argv[1:]
    task = BundleInferTask(bundle, {})
    assert task.is_valid()
    print("RESULT", task({"image": image, "device": "cpu"})[0])
