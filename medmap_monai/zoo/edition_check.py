"""Check of the edition that a bundle brings along."""

from __future__ import annotations

from medmap_monai.data.edition_file import EDITION_FILE
from medmap_monai.data.editions import get_edition
from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.outcome import fail


def edition(bundle: BundleFolder) -> str:
    """The edition that the configurations name exists, has the bundle's modalities and as many classes."""
    file = bundle.config_file("inference")
    named = None if file is None else bundle.parser([file]).get("edition")
    if named is None:
        if (bundle.root / "configs" / EDITION_FILE).is_file():
            fail(f"inference names no edition, but configs/{EDITION_FILE} is there")
        return "none named: that of the studies counts"
    found = get_edition(str(bundle.parser([file]).get_parsed_content("edition")))  # type: ignore[list-item]
    formats = bundle.metadata["network_data_format"]
    channels = formats["inputs"]["image"].get("channel_def", {})
    names = {channels[key] for key in channels}
    if not names <= set(found.modalities):
        fail(f"edition {found} has the modalities {list(found.modalities)}, the metadata {sorted(names)}")
    if len(found.classes) != formats["outputs"]["pred"]["num_channels"]:
        fail(f"edition {found} has the classes {list(found.classes)}, the network {formats['outputs']['pred']}")
    return f"{found}: {', '.join(found.classes)}"
