"""A release has one version, says what changed, and holds what wheels and images are made of."""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections import Counter
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from deploy.docker.image import DOCKERFILE, stages
from deploy.provenance import statement
from deploy.release import CannotRelease, collect, context_paths, notes, version_of
from tests.support.project import ROOT

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.com")

CHANGELOG = """# Changelog

## [Unreleased]
{}
## [1.2.0] - 2030-01-01

### Added

- Something.

## [1.1.0]

- Older.
"""


def test_the_notes_are_the_entries_of_the_version() -> None:
    assert notes(CHANGELOG.format(""), "1.2.0") == "### Added\n\n- Something.\n"
    assert notes(CHANGELOG.format(""), "1.1.0") == "- Older.\n"


def test_a_draft_tells_what_is_not_released() -> None:
    assert notes(CHANGELOG.format("\n- New.\n"), "1.2.0", draft=True) == "- New.\n"


@pytest.mark.parametrize(
    ("unreleased", "version", "sentence"),
    [("", "1.3.0", r"nothing under \[1\.3\.0\]"), ("- New.\n", "1.2.0", r"entries under \[Unreleased\]")],
)
def test_a_version_nobody_described_is_no_release(unreleased: str, version: str, sentence: str) -> None:
    with pytest.raises(CannotRelease, match=sentence):
        notes(CHANGELOG.format(unreleased), version)


def project(folder: Path, name: str, version: str) -> None:
    """Write the smallest project that hatchling builds."""
    (folder / name.replace("-", "_")).mkdir(parents=True)
    (folder / name.replace("-", "_") / "__init__.py").touch()
    (folder / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\nrequires-python = ">=3.11"\n'
    )


def test_distributions_of_different_versions_are_no_release(tmp_path: Path) -> None:
    project(tmp_path, "server", "1.2.0")
    project(tmp_path / "clients" / "python", "sdk", "1.1.0")
    with pytest.raises(CannotRelease, match=r"pyproject\.toml has 1\.2\.0, clients/python/pyproject\.toml has 1\.1\.0"):
        version_of(tmp_path)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with two distributions at 1.2.0, an ignored folder and something that is not committed."""
    root = tmp_path / "checkout"
    project(root, "the-server", "1.2.0")
    project(root / "clients" / "python", "sdk", "1.2.0")
    (root / "deploy" / "docker").mkdir(parents=True)
    (root / "deploy" / "docker" / "Dockerfile").write_text("FROM scratch\n")
    (root / ".dockerignore").write_text("*\n!the_server\n**/__pycache__\n")
    (root / "CHANGELOG.md").write_text(CHANGELOG.format(""))
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*GIT, *command], cwd=root, check=True)
    (root / "the_server" / "draft.py").touch()
    return root


def test_a_release_holds_what_is_committed(checkout: Path, tmp_path: Path) -> None:
    folder = collect(checkout, tmp_path / "dist")
    assert folder == tmp_path / "dist" / "1.2.0"
    wheels = ["sdk-1.2.0-py3-none-any.whl", "the_server-1.2.0-py3-none-any.whl"]
    assert sorted(path.name for path in folder.iterdir()) == ["image-context-1.2.0.tar.gz", "notes.md", *wheels]
    assert "the_server/__init__.py" in ZipFile(folder / wheels[1]).namelist()
    assert "the_server/draft.py" not in ZipFile(folder / wheels[1]).namelist()
    with tarfile.open(folder / "image-context-1.2.0.tar.gz") as context:
        files = {member.name for member in context if member.isfile()}
    assert files == {".dockerignore", "deploy/docker/Dockerfile", "the_server/__init__.py"}


def test_a_release_holds_the_contract(checkout: Path, tmp_path: Path) -> None:
    proto = checkout / "protos" / "mailing" / "v1" / "a.proto"
    proto.parent.mkdir(parents=True)
    proto.write_text('syntax = "proto3";\npackage mailing.v1;\nmessage A { int64 id = 1; }\n')
    (checkout / "protos" / "google").mkdir()
    (checkout / "protos" / "google" / "README.md").touch()
    (checkout / "buf.yaml").write_text("version: v2\nmodules: [{path: protos}]\n")
    for command in (["add", "."], ["commit", "-qm", "protos"]):
        subprocess.run([*GIT, *command], cwd=checkout, check=True)
    folder = collect(checkout, tmp_path / "dist")
    with tarfile.open(folder / "protos-1.2.0.tar.gz") as protos:
        assert "protos/mailing/v1/a.proto" in protos.getnames()
    described = FileDescriptorSet.FromString((folder / "mailing-1.2.0.binpb").read_bytes())
    assert [file.name for file in described.file] == ["mailing/v1/a.proto"]


def test_the_same_commit_makes_the_same_files(checkout: Path, tmp_path: Path) -> None:
    first, second = (collect(checkout, tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in sorted(first.iterdir())] == [
        path.read_bytes() for path in sorted(second.iterdir())
    ]


def test_all_that_the_image_copies_is_in_its_context() -> None:
    context = context_paths(ROOT)
    copied = [
        rest.split()[:-1] for stage in stages(DOCKERFILE.read_text()) for word, rest in stage.steps if word == "COPY"
    ]
    sources = [source for words in copied if not words[0].startswith("--from") for source in words]
    assert sources
    assert [one for one in sources if not any(Path(one).is_relative_to(path) for path in context)] == []


def test_the_provenance_names_every_file_and_the_commit(checkout: Path, tmp_path: Path) -> None:
    """Fails for a file that nobody vouches for, and for a statement that differs from run to run."""
    folder = collect(checkout, tmp_path / "dist")
    found = statement(checkout, folder)
    assert {one["name"] for one in found["subject"]} == {path.name for path in folder.iterdir()}
    for one in found["subject"]:
        assert one["digest"]["sha256"] == sha256((folder / one["name"]).read_bytes()).hexdigest()
    commit = subprocess.run([*GIT, "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    source = found["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert source["digest"] == {"gitCommit": commit.stdout.strip()}
    assert statement(checkout, folder) == found


def test_the_provenance_names_the_base_images() -> None:
    named = [
        one["name"]
        for one in statement(ROOT, DOCKERFILE.parent)["predicate"]["buildDefinition"]["resolvedDependencies"]
    ]
    assert "python:3.13-slim" in named
    assert "deploy/docker/requirements.lock" in named


def test_the_changelog_names_each_change_once_and_briefly() -> None:
    """Fails for what merges leave: halves of entries in each other, and entries that came back."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("## [Unreleased]")[2].partition("\n## [")[0]
    entries = [" ".join(entry.split()) for entry in re.split(r"^- |^#.*$|^\n", text, flags=re.MULTILINE)]
    entries = [entry for entry in entries if entry][1:]
    begins = Counter(" ".join(entry.split()[:5]) for entry in entries)
    assert [begin for begin, count in begins.items() if count > 1] == []
    assert [entry for entry in entries if entry.count("`") % 2 or not entry.endswith((".", ")"))] == []
    assert [entry for entry in entries if len(entry) > 400] == []
    lines = Counter(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    assert [line for line, count in lines.items() if count > 1] == []
