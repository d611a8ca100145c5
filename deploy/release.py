"""Collect what a release consists of, from the last commit, in `dist/VERSION`: see `make release`.

Wheels of all distributions, the .proto files and their descriptor set, the context in which the images are
built, and the notes of the version. All carry one version, which every pyproject.toml states and CHANGELOG.md
describes; what only lies in the work tree is left out. The same commit makes the same files. The bill of
materials and the provenance are added by the Makefile.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = (".", "clients/python")
"""Folders that are built, each where it has a pyproject.toml."""


class CannotRelease(Exception):
    """The commit is no release; the message is a sentence that says what to change."""


def collect(root: Path, into: Path, draft: bool = False) -> Path:
    """Fill a new folder under `into` from the last commit of `root` and return it.

    A `draft` describes what stands under [Unreleased]. Raise CannotRelease.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        with tarfile.open(fileobj=io.BytesIO(_archive(root, "tar"))) as committed:
            committed.extractall(source, filter="data")
        version = version_of(source)
        described = notes((source / "CHANGELOG.md").read_text(encoding="utf-8"), version, draft)
        target = into.absolute() / version
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for project in _projects(source):
            _build_wheel(project.parent, target)
        if (source / "protos").is_dir():
            (target / f"protos-{version}.tar.gz").write_bytes(
                _archive(root, "tar.gz", "protos/mailing", "protos/google")
            )
            _build_descriptors(source, target / f"mailing-{version}.binpb")
        context = _archive(root, "tar.gz", *context_paths(source))
        (target / f"image-context-{version}.tar.gz").write_bytes(context)
        (target / "notes.md").write_text(described, encoding="utf-8")
    return target


def version_of(root: Path) -> str:
    """Return the version that all distributions under `root` have. Raise CannotRelease when they differ."""
    found = {
        path.relative_to(root).as_posix(): str(tomllib.loads(path.read_text(encoding="utf-8"))["project"]["version"])
        for path in _projects(root)
    }
    if len(set(found.values())) != 1:
        versions = ", ".join(f"{name} has {version}" for name, version in found.items())
        raise CannotRelease(f"All distributions must have one version, but {versions}.")
    return found.popitem()[1]


def notes(changelog: str, version: str, draft: bool = False) -> str:
    """Return the entries of `version`, or for a `draft` the unreleased ones. Raise CannotRelease."""
    heads = re.split(r"^## \[(.+?)\].*\n", changelog, flags=re.MULTILINE)
    sections = {name: text.strip() for name, text in zip(heads[1::2], heads[2::2], strict=True)}
    if not draft and sections.get("Unreleased"):
        raise CannotRelease(
            f"CHANGELOG.md has entries under [Unreleased]: move them to a section of their own version (now {version}),"
            " or make a draft with ARGS=--draft."
        )
    if not (text := sections.get("Unreleased" if draft else version)):
        raise CannotRelease(f"CHANGELOG.md has nothing under [{'Unreleased' if draft else version}].")
    return f"{text}\n"


def context_paths(root: Path) -> list[str]:
    """Return what image builds need: what .dockerignore lets through, itself and the Dockerfiles."""
    lines = (root / ".dockerignore").read_text(encoding="utf-8").split()
    return [".dockerignore", "deploy/docker", *(line[1:] for line in lines if line.startswith("!"))]


def _projects(root: Path) -> list[Path]:
    return [path for one in DISTRIBUTIONS if (path := root / one / "pyproject.toml").is_file()]


def _archive(root: Path, form: str, *paths: str) -> bytes:
    command = ["git", "archive", f"--format={form}", "HEAD", *paths]
    return subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603


def _build_wheel(project: Path, target: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    subprocess.run(command, cwd=project, stdout=subprocess.DEVNULL, check=True)  # noqa: S603


def _build_descriptors(source: Path, target: Path) -> None:
    """Write the FileDescriptorSet of the contract, with comments and everything it imports."""
    buf = Path(sys.executable).with_name("buf")
    subprocess.run([buf, "build", "--output", target], cwd=source, check=True)  # noqa: S603


def main() -> None:
    """Collect the release of this checkout and print its folder."""
    options = argparse.ArgumentParser(description="Collect a release in dist/VERSION.")
    options.add_argument("--draft", action="store_true", help="describe what is not released yet")
    try:
        print(collect(ROOT, ROOT / "dist", options.parse_args().draft))
    except CannotRelease as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
