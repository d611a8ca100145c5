"""The bill of materials names every locked package, and no licence is used that nobody looked at."""

from __future__ import annotations

import re
import tomllib

import pytest

from deploy.packages import LOCK, Package, bill, licences, locked
from tests.support.project import ROOT


@pytest.fixture(scope="module")
def packages() -> list[Package]:
    return locked()


def test_every_locked_package_is_in_the_bill_with_its_hashes(packages: list[Package]) -> None:
    pins = re.findall(r"^([a-z0-9-]+)(?:\[.*?\])?==([^\s;]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    document = bill(packages, project)
    components = document["components"]
    assert [(one["name"], one["version"]) for one in components] == pins
    assert all(one["hashes"] for one in components)
    scopes = {one["name"]: one["scope"] for one in components}
    assert (scopes["grpcio"], scopes["asyncpg"], scopes["pytest"]) == ("required", "required", "excluded")
    refs = [one["bom-ref"] for one in components]
    assert len({*refs}) == len(refs)
    graph = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert graph.keys() == {"mailing", *refs}
    assert {ref for needs in graph.values() for ref in needs} <= {*refs}
    assert next(one for one in graph["mailing"] if "/asyncpg@" in one)
    assert bill(packages, project) == document


def test_all_licences_were_looked_at(packages: list[Package]) -> None:
    lines, problems = licences(packages)
    assert problems == []
    assert len(lines) == len(packages)


@pytest.mark.parametrize("licence", ["", "GPL-3.0-only", "MIT AND GPL-3.0-only", "MIT OR Proprietary", "see LICENSE"])
def test_a_licence_that_nobody_looked_at_is_a_problem(packages: list[Package], licence: str) -> None:
    _, problems = licences([packages[0]._replace(licence=licence)])
    assert len(problems) == 1
