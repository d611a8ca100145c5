"""Which metrics dashboards and alerts ask for."""

from __future__ import annotations

import re

from deploy.dashboards import DASHBOARDS
from tests.support.project import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules.yml"

_METRIC = re.compile(r"\b(?:mailing|grpc_server|process)_[a-z_]+")


def metrics_of_dashboards() -> set[str]:
    queries = [query for dashboard in DASHBOARDS for panel in dashboard.panels for query, _ in panel.queries]
    queries += [query for dashboard in DASHBOARDS for _, query in dashboard.variables]
    return set(_METRIC.findall("\n".join(queries)))


def metrics_of_rules() -> set[str]:
    return set(_METRIC.findall(RULES.read_text(encoding="utf-8")))
