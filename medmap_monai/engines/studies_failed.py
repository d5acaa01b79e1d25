"""Which studies failed, and that the others are done."""

from __future__ import annotations

from medmap_monai.utils.counted import counted


class StudiesFailedError(RuntimeError):
    """Some studies could not be segmented; the others are complete.

    Args:
        failures: message by case id.
        finished: how many studies were segmented.
    """

    def __init__(self, failures: dict[str, str], finished: int) -> None:
        lines = "\n".join(f"  {message}" for message in failures.values())
        total = counted(len(failures) + finished, "study")
        super().__init__(f"{len(failures)} of {total} failed, the others are done:\n{lines}")
        self.failures = failures
