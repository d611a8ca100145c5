"""Make what is published of the client libraries, each where its tools are: see `make client-packages`.

A Go module as a proxy serves it, an npm package, Java's jar with its pom, Python's wheel. Each has the
contract's .proto files and their descriptor set. The wheel is part of `make release`, too.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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


@contextmanager
def _alone_beside(file: Path) -> Iterator[Path]:
    """Lend the file's folder; other builds there, also of other processes, wait until the block ends."""
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield file.parent


def npm_install() -> None:
    """Install what the TypeScript client needs, where that changed."""
    with _alone_beside(CLIENTS / "typescript" / "package-lock.json") as source:
        _npm_install(source)


def _npm_install(source: Path) -> None:
    installed, wanted = source / "node_modules" / ".package-lock.json", source / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
        run("npm", "ci", "--no-fund", "--no-audit", "--prefer-offline", folder=source)


@contextmanager
def npm_built() -> Iterator[Path]:
    """Compile the TypeScript client, with what it needs; lend its folder, in which nobody builds meanwhile."""
    with _alone_beside(CLIENTS / "typescript" / "package-lock.json") as source:
        _npm_install(source)
        run("npm", "run", "build", folder=source)
        yield source


def npm_package(into: Path) -> Path:
    """Make the tarball for npm."""
    with npm_built() as source:
        contract(source / "protos")
        return into / run("npm", "pack", "--silent", "--pack-destination", str(into), folder=source).split()[-1]


@contextmanager
def maven_built() -> Iterator[Path]:
    """Compile the Java client, its driver and examples, and put what they need into target/lib.

    Lend its folder, in which nobody builds meanwhile: Maven removes the classes before it makes them anew.
    """
    with _alone_beside(CLIENTS / "java" / "pom.xml") as source:
        run("mvn", "-q", "-B", "-DskipTests", "package", "dependency:copy-dependencies", folder=source)
        yield source


def maven_package(into: Path) -> Path:
    """Make a Maven repository that holds the jar and its pom, below `into`, and return the jar."""
    name = f"mailing-client-{version()}"
    folder = into / "com" / "example" / "mailing" / "mailing-client" / version()
    folder.mkdir(parents=True, exist_ok=True)
    with maven_built() as source:
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
