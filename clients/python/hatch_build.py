"""Puts the .proto files into the wheel, as `mailing/protos`, and into the source distribution, as `protos`.

They lie beside all clients of the repository; a build from a source distribution finds them in there. Where
there are none, as in the image of the service, nothing is added.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProtosHook(BuildHookInterface[Any]):
    """Adds `protos/mailing` and `protos/google`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the folders, unless the package is installed as it lies here."""
        here = Path(self.root)
        place = "mailing/protos" if self.target_name == "wheel" else "protos"
        for protos in (here / "protos", here.parent.parent / "protos"):
            if (protos / "mailing").is_dir() and version != "editable":
                build_data["force_include"] |= {str(protos / name): f"{place}/{name}" for name in ("mailing", "google")}
                return
