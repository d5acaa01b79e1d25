"""What looks wrong with the label map of a study, from what the predictor has at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils.enums import CommonKeys

from medmap_monai.metrics.plausibility import plausibility_flags
from medmap_monai.transforms.restore import SHOWN_HERE, RestoreToOriginal


def result_flags(output: Mapping[str, Any]) -> list[str]:
    """What is implausible about a restored label map, against the voxels in which any image shows something."""
    image, label_map = output[CommonKeys.IMAGE], output[CommonKeys.PRED]
    if SHOWN_HERE in output:  # of the files themselves; normalised images may hold no zero
        where = torch.as_tensor(output[SHOWN_HERE]).numpy()
        return plausibility_flags(label_map.as_tensor().numpy(), where, np.asarray(label_map.affine))
    shown = MetaTensor((image.as_subclass(torch.Tensor) != 0).any(dim=0, keepdim=True).float())
    brain = RestoreToOriginal()(shown.copy_meta_from(image))
    return plausibility_flags(label_map.as_tensor().numpy(), brain.as_tensor().numpy(), np.asarray(label_map.affine))
