"""Say where the files of a release come from: `provenance.json` beside them, for `make release`.

An in-toto statement with the SLSA provenance predicate, unsigned: the files by their SHA-256, the commit they were
made from, the base images by what the Dockerfile names, and the locked packages by their files' hashes. The same
commit makes the same statement. Sign it with what your registry takes, such as cosign.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAME = "provenance.json"
BUILD_TYPE = "https://example.com/mailing/release/v1"
"""A placeholder, as the project has no public home yet: `make release` at this commit."""


def statement(root: Path, folder: Path) -> dict[str, Any]:
    """Return the statement about the files of a release folder, made from the last commit of `root`."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in (NAME, "SHA256SUMS"))
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": _digest(path)} for path in files],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": folder.name},
                "resolvedDependencies": [*_sources(root), *_images(root), *_locks(root)],
            },
            "runDetails": {"builder": {"id": f"{BUILD_TYPE}#make-release"}},
        },
    }


def _digest(path: Path) -> dict[str, str]:
    return {"sha256": sha256(path.read_bytes()).hexdigest()}


def _sources(root: Path) -> list[dict[str, Any]]:
    command = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()  # noqa: S603
    return [{"name": "source", "digest": {"gitCommit": commit}}]


def _images(root: Path) -> list[dict[str, Any]]:
    """Return the base images of the Dockerfile, with their digests where it names them."""
    text = (root / "deploy" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    names = sorted({*re.findall(r"^ARG \w+=(\S+)", text, re.MULTILINE), *re.findall(r"^FROM ([^$\s]\S*)", text, re.M)})
    found = []
    for name, _, digest in (one.partition("@sha256:") for one in names if one != "scratch"):
        found.append({"name": name} | ({"digest": {"sha256": digest}} if digest else {}))
    return found


def _locks(root: Path) -> list[dict[str, Any]]:
    paths = [path for path in (root / "deploy/docker/requirements.lock",) if path.exists()]
    return [{"name": path.relative_to(root).as_posix(), "digest": _digest(path)} for path in paths]


def main(folder: str) -> None:
    """Write the statement of a release folder into it."""
    text = json.dumps(statement(ROOT, Path(folder)), indent=2)
    (Path(folder) / NAME).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
