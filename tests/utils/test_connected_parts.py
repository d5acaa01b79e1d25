from __future__ import annotations

import numpy as np

from medmap_monai.utils.connected_parts import connected_parts


def test_what_meets_at_a_corner_hangs_together() -> None:
    mask = np.zeros((6, 6, 6), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[1, 1, 2] = mask[4, 4, 4] = True
    parts, sizes = connected_parts(mask)
    assert sorted(sizes.tolist()) == [1, 3]
    assert np.array_equal(parts > 0, mask)
    assert parts[0, 0, 0] == parts[1, 1, 1] != parts[4, 4, 4]
    parts, sizes = connected_parts(np.eye(3, dtype=bool))
    assert sizes.tolist() == [3]
    assert connected_parts(np.zeros((2, 2, 2), dtype=bool))[1].tolist() == []
