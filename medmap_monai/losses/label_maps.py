"""What the losses need to know about a label, computed once per step instead of once per loss and map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medmap_monai.utils.fixed_course import data_may_decide


class LabelMaps(NamedTuple):
    """A label in the forms that losses read, with the spatial axes flattened to V voxels.

    class_index: class of every voxel, int64 (B, V).
    one_hot: the same as 0/1 in floating point, (B, K, V).
    counts: voxels per class, (B, K).
    size: the spatial size.
    """

    class_index: Tensor
    one_hot: Tensor
    counts: Tensor
    size: torch.Size

    def rows(self, sample: Tensor) -> LabelMaps:
        """The label of each row in ``sample`` (R,); one row that broadcasts where the batch has only one."""
        return LabelMaps(
            rows_of(self.class_index, sample), rows_of(self.one_hot, sample), rows_of(self.counts, sample), self.size
        )


def rows_of(values: Tensor, sample: Tensor) -> Tensor:
    """``values[sample]``, or ``values`` itself, which broadcasts over the rows, where it has only one row."""
    return values if values.shape[0] == 1 else values.index_select(0, sample)


def label_maps(label: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> LabelMaps:
    """Index, one-hot and voxel counts of a label.

    Args:
        label: class indices (B, 1, ...) of any integer or floating type.
        classes: number of classes K, background included.
        dtype: type of the one-hot maps and counts.

    Raises:
        ValueError: when the label is not (B, 1, ...) or holds a class outside 0..K-1.
    """
    if label.ndim < 3 or label.shape[1] != 1:
        raise ValueError(f"label must be class indices (B, 1, ...), got shape {list(label.shape)}")
    index = label.flatten(1).to(torch.int64)
    if data_may_decide():  # else whoever replays the step checks it
        check_classes(index, classes)
    one_hot = torch.zeros(index.shape[0], classes, index.shape[1], dtype=dtype, device=label.device)
    one_hot.scatter_(1, index.unsqueeze(1), 1.0)
    return LabelMaps(index, one_hot, one_hot.sum(2), label.shape[2:])


def check_classes(label: Tensor, classes: int) -> None:
    """Raise ValueError where ``label`` holds a class outside 0..K-1; on a GPU the host waits for it."""
    lowest, highest = (int(v) for v in torch.aminmax(label))
    if lowest < 0 or highest >= classes:
        raise ValueError(f"label holds classes {lowest}..{highest}; the prediction has {classes}: 0..{classes - 1}")


def full_precision(values: Tensor) -> Tensor:
    """``values`` in at least float32: half precision cannot hold sums over a volume."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
