"""Run the MONAI Deploy example with MONAI Deploy's own SDK; a script of its own, as its packages are not ours.

monai_deploy_app.py PACKAGES FOLDER ARGUMENT ...     the application in FOLDER, with its command line
monai_deploy_app.py PACKAGES FOLDER --manifests      prints the manifests that the packager makes of its app.yaml
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path


def manifests(config: Path) -> None:
    from holoscan_cli.packager.config_reader import ApplicationConfiguration
    from holoscan_cli.packager.parameters import PackageBuildParameters

    reader = ApplicationConfiguration()
    reader.read(config)
    given = PackageBuildParameters()
    given.app_config_file_path = config
    given.application = config.parent
    found = {"app": reader.populate_app_manifest(given).data, "pkg": reader.populate_package_manifest(given).data}
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    packages, folder, *words = sys.argv[1:]
    sys.path.append(packages)
    if words == ["--manifests"]:
        manifests(Path(folder) / "app.yaml")
    else:
        import monai

        monai.__path__.append(str(Path(packages) / "monai"))  # the SDK is a part of the package monai
        sys.argv = [folder, *words]
        runpy.run_path(folder, run_name="__main__")
