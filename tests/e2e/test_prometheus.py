"""What the service tells of itself is true, and a real Prometheus can make use of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.dashboards import DASHBOARDS
from mailing.cli.processes import running
from tests.e2e.conftest import REJECTED, Cli, Serve
from tests.support.eventually import eventually_sync
from tests.support.monitoring import PROMETHEUS, metrics_of_dashboards, metrics_of_rules
from tests.support.scrape import ADMIN, Samples, get, sampled, scrape, value

CLIENTS, REFUSED = 300, 2
OF_OTHERS = {
    "mailing_receipts_total",
    "mailing_report_failed",
    "mailing_standby_lag_seconds",
    "mailing_webhook_requests_total",
}
"""There only with a listener for receipts."""
DELIVERED = {"endpoint": "default", "status": "delivered"}


def admin_of(tmp_path: Path) -> str:
    found = ADMIN.findall((tmp_path / "service.log").read_text())
    assert found
    return str(found[-1]).rstrip('"')


def mail(cli: Cli) -> dict[str, int]:
    """Send a mailing to everybody and return its progress."""
    mailing = cli.json("mailings", "create", "--all", "--text", "Hi", "--snapshot")
    watched = cli.run("--json", "watch", str(mailing["id"]))
    assert watched.returncode == 4, watched.stderr
    return dict(json.loads(watched.stdout.splitlines()[-1])["progress"])


@pytest.fixture
def populated(serve: Serve, tmp_path: Path, dispatchers: int) -> Cli:
    """Return a service with clients, two of whom the endpoint refuses."""
    cli = serve("--dispatchers", str(dispatchers), MAILING_ADMIN_LISTEN="127.0.0.1:0")
    phones = [f"7020{number:07}" for number in range(CLIENTS - REFUSED)] + [
        f"7030{n}{REJECTED}" for n in range(REFUSED)
    ]
    (tmp_path / "clients.csv").write_text("phone,timezone\n" + "".join(f"{phone},UTC\n" for phone in phones))
    cli.json("clients", "import", str(tmp_path / "clients.csv"))
    return cli


@pytest.mark.parametrize("dispatchers", [0, 2])
def test_the_figures_are_those_of_the_ledger(populated: Cli, tmp_path: Path, dispatchers: int) -> None:
    progress, admin = mail(populated), admin_of(tmp_path)
    assert (progress["delivered"], progress["failed"]) == (CLIENTS - REFUSED, REFUSED)
    sampled(admin, "mailing_messages_total", progress["delivered"], **DELIVERED)
    samples = scrape(admin)
    assert value(samples, "mailing_messages_total", endpoint="default", status="failed") == progress["failed"]
    assert summed(samples, "mailing_attempts_total") == progress["attempts"]
    assert value(samples, "mailing_attempts_total", **{"endpoint": "default", "class": "none"}) == progress["delivered"]
    assert value(samples, "mailing_attempt_seconds_count", endpoint="default") == progress["attempts"]
    assert value(samples, "mailing_batches_claimed_total") >= 1
    assert value(samples, "mailing_settle_seconds_count") >= 1
    assert value(samples, "mailing_dispatchers") == max(1, dispatchers)
    told = {dict(labels)["dispatcher"] for name, labels in samples if name == "mailing_dispatcher_in_flight"}
    assert told == ({"1", "2"} if dispatchers else {"0"})
    calls = {"grpc_service": "mailing.v1.MailingService", "grpc_method": "CreateMailing", "grpc_type": "UNARY"}
    assert value(samples, "grpc_server_handled_total", grpc_code="OK", **calls) == 1
    assert populated.run("health").stdout == "serving\n"
    names = {name for name, _ in samples}
    assert (metrics_of_dashboards() | metrics_of_rules()) - names == OF_OTHERS


@pytest.mark.parametrize("dispatchers", [1])
def test_a_killed_dispatcher_takes_no_count_with_it(populated: Cli, tmp_path: Path) -> None:
    """Fails when `Totals.end` forgets the counters of the process."""
    admin = admin_of(tmp_path)
    first = mail(populated)
    sampled(admin, "mailing_messages_total", first["delivered"], **DELIVERED)
    os.kill(dispatcher_of(tmp_path), signal.SIGKILL)
    sampled(admin, "mailing_dispatcher_restarts_total", 1)
    assert value(scrape(admin), "mailing_messages_total", **DELIVERED) == first["delivered"]
    second = mail(populated)
    both = first["delivered"] + second["delivered"]
    sampled(admin, "mailing_messages_total", both, **DELIVERED)


@pytest.fixture
def prometheus(populated: Cli, tmp_path: Path) -> Iterator[str]:
    """Yield a Prometheus that scrapes the service and have the rules; its address."""
    if shutil.which("prometheus") is None:
        pytest.skip("there is no Prometheus here: on Debian it comes with the package prometheus")
    shutil.copy(PROMETHEUS / "rules.yml", tmp_path)
    text = (PROMETHEUS / "prometheus.yml").read_text()
    text = text.replace("127.0.0.1:9464", admin_of(tmp_path)).replace("15s", "200ms\n  evaluation_interval: 200ms")
    (tmp_path / "prometheus.yml").write_text(text)
    program = ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", "--web.listen-address=127.0.0.1:0"]
    program.append(f"--storage.tsdb.path={tmp_path / 'tsdb'}")
    ready = re.compile(r"msg=\"?Listening on\"? address=(127\S+)")
    with running(program, ready, tmp_path / "prometheus.log", os.environ) as match:
        yield match[1]


@pytest.mark.parametrize("dispatchers", [0])
def test_a_real_prometheus_scrapes_it_and_answers(populated: Cli, prometheus: str) -> None:
    progress = mail(populated)
    query = 'sum(mailing_messages_total{job="mailing",status="delivered"})'
    eventually_sync(lambda: answers(prometheus, query), lambda found: found == [str(progress["delivered"])])
    assert answers(prometheus, 'up{job="mailing"}') == ["1"]
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for expression, _ in panel.queries:
                answers(prometheus, filled(expression))
    eventually_sync(lambda: {health for _, health in alerts(prometheus)}, lambda found: found == {"ok"})
    assert len(alerts(prometheus)) == (PROMETHEUS / "rules.yml").read_text().count("- alert:")


def dispatcher_of(tmp_path: Path) -> int:
    """Return the process of the service's one dispatcher."""
    [found] = [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if (words := _words(process)) and b"--until-stdin-closes" in words and _parent_logs_to(process, tmp_path)
    ]
    return found


def _words(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _parent_logs_to(process: Path, tmp_path: Path) -> bool:
    return os.readlink(process / "fd" / "2") == str(tmp_path / "service.log")


def summed(samples: Samples, name: str) -> float:
    return sum(number for (one, _), number in samples.items() if one == name)


def filled(expression: str) -> str:
    """Return a dashboard's query as Grafana sends it."""
    return re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", "1m"))


def asked(prometheus: str, path: str, **parameters: str) -> Any:
    page = get(prometheus, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
    answer = json.loads(page.text)
    assert answer["status"] == "success", f"{parameters}: {answer}"
    return answer["data"]


def answers(prometheus: str, query: str) -> list[str]:
    """Return the values that a query gives."""
    return [one["value"][1] for one in asked(prometheus, "query", query=query)["result"]]


def alerts(prometheus: str) -> list[tuple[str, str]]:
    return [(rule["name"], rule["health"]) for group in asked(prometheus, "rules")["groups"] for rule in group["rules"]]
