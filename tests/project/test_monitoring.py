"""Dashboards, alerts and the page of metrics speak of metrics that there are, and tell the same as the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from deploy.dashboards import DASHBOARDS, FOLDER, text_of
from docs.metrics_table import PAGE, with_table
from server.observability.metrics import FAMILIES
from tests.support.documents import anchors, page, section
from tests.support.monitoring import PROMETHEUS, RULES, metrics_of_dashboards, metrics_of_rules
from tests.support.project import ROOT

RUNBOOKS = section(page("troubleshooting"), "## Runbooks")
OTHERS = {
    *(f"grpc_server_{name}_total" for name in ("started", "handled", "msg_received", "msg_sent")),
    "grpc_server_handling_seconds_bucket",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
}
PARTS = {
    f"{family.name}{part}" for family in FAMILIES.values() if family.bounds for part in ("_bucket", "_count", "_sum")
}
KNOWN = {family.name for family in FAMILIES.values() if not family.bounds} | PARTS | OTHERS


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.name)
def test_the_files_of_dashboards_are_what_is_described(dashboard: Any) -> None:
    """After a change: python deploy/dashboards.py."""
    assert (FOLDER / f"{dashboard.name}.json").read_text(encoding="utf-8") == text_of(dashboard)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.name)
def test_panels_have_places_of_their_own_on_the_screen(dashboard: Any) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(text_of(dashboard))["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_dashboards_and_alerts_use_metrics_that_there_are() -> None:
    """tests/e2e/test_prometheus.py asks a real scrape the same."""
    assert metrics_of_dashboards() - KNOWN == set()
    assert metrics_of_rules() - KNOWN == set()


def test_every_metric_is_shown_somewhere() -> None:
    shown = metrics_of_dashboards()
    hidden = [name for name in FAMILIES if not shown & {name, f"{name}_bucket"}]
    assert hidden == []


def test_the_page_of_metrics_has_the_present_table() -> None:
    """After a change: make generate."""
    text = PAGE.read_text(encoding="utf-8")
    assert with_table(text) == text


ALERTS = {rule.split("\n")[0]: rule for rule in RULES.read_text(encoding="utf-8").split("- alert: ")[1:]}


@pytest.mark.parametrize(("name", "rule"), ALERTS.items(), ids=ALERTS)
def test_every_alert_has_a_severity_a_runbook_and_a_case_that_fires_it(name: str, rule: str) -> None:
    assert re.search(r"severity: (critical|warning)", rule)
    assert f"runbook_url: docs/troubleshooting.md#{name.lower()}\n" in rule
    assert re.search(rf"^### {name}$", RUNBOOKS, re.MULTILINE)
    cases = (PROMETHEUS / "rules_test.yml").read_text(encoding="utf-8")
    assert re.search(rf"alertname: {name}\n +eval_time: \w+\n +exp_alerts:", cases)


def test_every_runbook_url_leads_to_a_heading_of_its_page() -> None:
    urls = re.findall(r"runbook_url: (\S+)#(\S+)", RULES.read_text(encoding="utf-8"))
    assert len(urls) == len(ALERTS)
    assert [one for one in urls if one[1] not in anchors(ROOT / one[0])] == []


def test_runbooks_are_of_alerts() -> None:
    assert re.findall(r"^### (\w+)$", RUNBOOKS, re.MULTILINE) == list(ALERTS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "rules.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "rules_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_agrees(arguments: list[str]) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool here: on Debian it comes with the package prometheus")
    ended = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
