"""Make what is published of the client libraries, each where its tools are: see `make client-packages`.

A Go module as a proxy serves it, an npm package, Java's jar with its pom, Python's wheel. Each has the
contract's .proto files and their descriptor set. The wheel is part of `make release`, too.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = ROOT / "clients"
GO_MODULE = "example.com/mailing/clients/go"
DESCRIPTORS = "mailing.binpb"
"""The contract as one file: a google.protobuf.FileDescriptorSet with what it imports."""

_LONG_AGO = (1980, 1, 1, 0, 0, 0)


class Package(NamedTuple):
    """What makes a package in a folder, and the tools that it needs."""

    tools: Sequence[str]
    make: Callable[[Path], Path]

    @property
    def missing(self) -> list[str]:
        """Return the tools that this machine lacks."""
        return [tool for tool in self.tools if shutil.which(tool) is None]


def version() -> str:
    """Return the version of all client libraries."""
    text = (CLIENTS / "python" / "pyproject.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["project"]["version"])


def contract(into: Path) -> None:
    """Write the contract's .proto files and their descriptor set into a folder, which is emptied."""
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(ROOT / "protos", into, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    run(str(Path(sys.executable).with_name("buf")), "build", "--output", str(into / DESCRIPTORS), folder=ROOT)


def run(*words: str, folder: Path) -> str:
    """Run a tool and return what it printed. Raise RuntimeError with all of that when it fails."""
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if ended.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def go_module(into: Path) -> Path:
    """Make the files by which a module proxy serves the module, below `into`, and return the archive."""
    source, contracts = CLIENTS / "go", into / "contract"
    contract(contracts)
    folder = into / GO_MODULE / "@v"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"v{version()}"
    (folder / f"{name}.info").write_text(json.dumps({"Version": name}))
    shutil.copy(source / "go.mod", folder / f"{name}.mod")
    tracked = run("git", "ls-files", "--cached", "--others", "--exclude-standard", folder=source).split()
    files = {one: source / one for one in tracked}
    files |= {f"protos/{one.relative_to(contracts)}": one for one in sorted(contracts.rglob("*")) if one.is_file()}
    archive = folder / f"{name}.zip"
    with ZipFile(archive, "w", ZIP_DEFLATED) as package:
        for path, file in files.items():
            package.writestr(ZipInfo(f"{GO_MODULE}@{name}/{path}", _LONG_AGO), file.read_bytes())
    shutil.rmtree(contracts)
    return archive


def python_wheel(into: Path) -> Path:
    """Make the wheel, whose build takes the contract by itself."""
    command = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(into))
    run(*command, folder=CLIENTS / "python")
    return into / f"mailing-{version()}-py3-none-any.whl"


def npm_install(then: Sequence[str] = ()) -> Path:
    """Install what the TypeScript client needs where that changed, run npm with `then`, and return its folder."""
    source = CLIENTS / "typescript"
    with (source / "package-lock.json").open() as wanted:
        fcntl.flock(wanted, fcntl.LOCK_EX)  # two of npm in one folder spoil each other's work
        installed = source / "node_modules" / ".package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < os.fstat(wanted.fileno()).st_mtime:
            run("npm", "ci", "--no-fund", "--no-audit", "--prefer-offline", folder=source)
        if then:
            run("npm", *then, folder=source)
    return source


def npm_build() -> Path:
    """Compile the TypeScript client, with what it needs, and return its folder."""
    return npm_install(then=("run", "build"))


def npm_package(into: Path) -> Path:
    """Make the tarball for npm."""
    source = npm_build()
    contract(source / "protos")
    name = run("npm", "pack", "--silent", "--pack-destination", str(into), folder=source).split()[-1]
    return into / name


def maven_build() -> Path:
    """Compile the Java client, its driver and examples, put what they need into target/lib, and return its folder."""
    source = CLIENTS / "java"
    with (source / "pom.xml").open() as pom:
        fcntl.flock(pom, fcntl.LOCK_EX)
        run("mvn", "-q", "-B", "-DskipTests", "package", "dependency:copy-dependencies", folder=source)
    return source


def maven_package(into: Path) -> Path:
    """Make a Maven repository that holds the jar and its pom, below `into`, and return the jar."""
    source = maven_build()
    name = f"mailing-client-{version()}"
    folder = into / "com" / "example" / "mailing" / "mailing-client" / version()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "pom.xml", folder / f"{name}.pom")
    return Path(shutil.copy(source / "target" / f"{name}.jar", folder))


PACKAGES: Mapping[str, Package] = {
    "go": Package(("go",), go_module),
    "java": Package(("javac", "mvn"), maven_package),
    "python": Package((), python_wheel),
    "typescript": Package(("node", "npm"), npm_package),
}


def main() -> int:
    """Make all packages whose tools are there, and say what was made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "dist" / "clients")
    into: Path = parser.parse_args().into.absolute()
    for name, package in PACKAGES.items():
        if package.missing:
            print(f"{name}: left out, since this machine lacks {', '.join(package.missing)}")
            continue
        folder = into / name
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{name}: {package.make(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
