"""What setup.cfg cannot say: the wheel carries the bundles, and the README loses the links that only a clone has.

What a user of a bundle needs of ``bundles/NAME`` goes to ``medmap_monai/bundles/NAME``.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_ROOT = Path(__file__).parent
_KEPT = ("LICENSE", "configs/*.json", "configs/logging.conf", "docs/*", "models/model.pt", "models/*.json")


def bundle_files() -> list[Path]:
    """Files of the bundles, relative to the repository; runs and data that lie there stay at home."""
    folders = sorted(p.parent.parent for p in (_ROOT / "bundles").glob("*/configs/metadata.json"))
    found = [file for folder in folders for pattern in _KEPT for file in sorted(folder.glob(pattern)) if file.is_file()]
    return [file.relative_to(_ROOT) for file in found]


class BuildWithBundles(build_py):
    """``build_py`` that puts the bundles into the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # the bundles of the checkout are used where they are
        for file in bundle_files():
            target = Path(self.build_lib, "medmap_monai", file)
            self.mkpath(str(target.parent))
            self.copy_file(str(_ROOT / file), str(target))


def index_description() -> str:
    """README.md as a package index shows it: paragraphs of pictures go, and pages are named, as links lead nowhere."""
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    target = r"\]\((?!https?:|#)([^)#\s]+)[^)\s]*\)"
    without_pictures = re.sub(rf"^!\[[^]]*{target}\n(.+\n)*\n", "", text, flags=re.MULTILINE)
    named = re.sub(rf"\[([^]]*){target}", r"\1 (`\2`)", without_pictures)
    return f"{named.rstrip()}\n\nThe files named here come with the source distribution.\n"


setup(
    cmdclass={"build_py": BuildWithBundles},
    long_description=index_description(),
    long_description_content_type="text/markdown",
)
