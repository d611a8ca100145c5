"""Puts the contract into the wheel, as `mailing/protos`, and into the source distribution, as `protos`.

The .proto files lie beside all clients of the repository; a build from a source distribution finds them in
there. `mailing.binpb` is their descriptor set. Where there are none, as in the image of the service, nothing is added.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DESCRIPTORS = "mailing.binpb"


class ProtosHook(BuildHookInterface[Any]):
    """Adds `protos/mailing`, `protos/google` and the descriptor set."""

    _made: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files, unless the package is installed as it lies here."""
        here = Path(self.root)
        found = [one for one in (here / "protos", here.parent.parent / "protos") if (one / "mailing").is_dir()]
        if version == "editable" or not found:
            return
        place = "mailing/protos" if self.target_name == "wheel" else "protos"
        build_data["force_include"] |= {str(found[0] / name): f"{place}/{name}" for name in ("mailing", "google")}
        if self.target_name == "wheel":
            build_data["force_include"][self._descriptors(found[0])] = f"{place}/{DESCRIPTORS}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made for the build."""
        if self._made:
            shutil.rmtree(self._made)

    def _descriptors(self, protos: Path) -> str:
        """Return the path of the descriptor set, made by the buf of this environment or of this machine."""
        self._made = tempfile.mkdtemp()
        target = str(Path(self._made) / DESCRIPTORS)
        beside = Path(sys.executable).with_name("buf")
        buf = str(beside) if beside.exists() else "buf"
        subprocess.run([buf, "build", "--output", target], cwd=protos, check=True)  # noqa: S603 - our own words
        return target
