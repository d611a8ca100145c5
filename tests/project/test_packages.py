"""The bill of materials names every locked package, and both distributions fit together."""

from __future__ import annotations

import re

import pytest

from deploy.packages import LOCK, Package, bill, licences, locked, projects
from tests.support.project import ROOT


@pytest.fixture(scope="module")
def packages() -> list[Package]:
    return locked()


def test_every_locked_package_is_in_the_bill_with_its_hashes(packages: list[Package]) -> None:
    pins = re.findall(r"^([a-z0-9-]+)(?:\[.*?\])?==([^\s;]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    document = bill(packages, projects())
    components = document["components"]
    assert [(one["name"], one["version"]) for one in components] == pins
    assert all(one["hashes"] for one in components)
    scopes = {one["name"]: one["scope"] for one in components}
    assert (scopes["grpcio"], scopes["asyncpg"], scopes["pytest"]) == ("required", "required", "excluded")
    refs = [one["bom-ref"] for one in components]
    assert len({*refs}) == len(refs)
    graph = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert graph.keys() == {"mailing-server", *refs}
    assert {ref for needs in graph.values() for ref in needs} <= {*refs}
    assert {one.split("/")[1].split("@")[0] for one in graph["mailing-server"]} > {"asyncpg", "rich"}
    assert bill(packages, projects()) == document


def test_all_licences_were_looked_at(packages: list[Package]) -> None:
    lines, problems = licences(packages)
    assert problems == []
    assert len(lines) == len(packages)


@pytest.mark.parametrize("licence", ["", "GPL-3.0-only", "MIT AND GPL-3.0-only", "MIT OR Proprietary", "see LICENSE"])
def test_a_licence_that_nobody_looked_at_is_a_problem(packages: list[Package], licence: str) -> None:
    _, problems = licences([packages[0]._replace(licence=licence)])
    assert len(problems) == 1


def test_both_distributions_have_one_version() -> None:
    """Fails when a release is prepared in one of the three places only."""
    server, sdk = projects()
    assert (server["name"], sdk["name"]) == ("mailing-server", "mailing")
    assert server["version"] == sdk["version"]
    assert f"mailing=={sdk['version']}" in server["dependencies"]


def test_the_sdk_loads_no_module_by_a_name_in_a_string() -> None:
    """Entry points alone lead to the server: the import contracts see everything else."""
    sources = [path for path in (ROOT / "clients/python/mailing").rglob("*.py") if path.parent.name != "v1"]
    loading = re.compile(r"import_module|__import__|runpy|find_spec|exec\(|[\"'](server|dispatcher)\.\w+[\"']")
    assert len(sources) > 20
    assert [path.name for path in sources if loading.search(path.read_text(encoding="utf-8"))] == []


def test_the_sdk_s_licence_is_the_project_s() -> None:
    assert (ROOT / "clients/python/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
