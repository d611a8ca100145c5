"""The service as a process: how it starts, what it says when it cannot, how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mailing import MailingClient
from mailing.v1.client_pb2 import ClientFilter
from server.runtime.descriptors import BESIDE
from tests.support.processes import PATIENCE, children_beside, ended, gone, serving


def health(address: str) -> int:
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        return int(answer.status)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_serves_on_a_free_port_and_ends_with_0_when_asked(database_dsn: str, number: signal.Signals) -> None:
    with serving(MAILING_DSN=database_dsn) as (process, address):
        assert health(address) == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out == ""
    assert "Traceback" not in err


def test_without_a_dsn_it_brings_its_own_postgres_and_takes_it_along(tmp_path: Path) -> None:
    with serving(MAILING_DATA_DIR=str(tmp_path / "data")) as (process, address):
        assert health(address) == health_pb2.HealthCheckResponse.SERVING
        assert (tmp_path / "data" / "postgres" / "postmaster.pid").exists()
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists()


def test_it_ends_with_a_sentence_when_its_postgres_dies(tmp_path: Path) -> None:
    with serving(MAILING_DATA_DIR=str(tmp_path)) as (process, _):
        os.kill(int((tmp_path / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "The embedded Postgres ended by itself (killed by SIGKILL)" in err.splitlines()[-1]


def test_a_standby_that_is_away_stops_nothing(database_dsn: str) -> None:
    """Fails when the start waits for it, and when a filtered list is refused."""
    with serving(MAILING_DSN=database_dsn, MAILING_READ_DSN="postgresql://127.0.0.1:1/away") as (_, address):
        assert health(address) == health_pb2.HealthCheckResponse.SERVING
        with MailingClient.connect(address) as client:
            assert list(client.list_clients(ClientFilter(tags=["x"]))) == []


def test_without_an_endpoint_it_says_that_nothing_will_be_delivered(database_dsn: str) -> None:
    with serving(MAILING_DSN=database_dsn) as (process, _):
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert "nothing will be delivered: neither MAILING_ENDPOINT_URL nor MAILING_ENDPOINTS_FILE is set" in err


def test_an_endpoint_that_does_not_resolve_is_named_and_the_service_runs(database_dsn: str) -> None:
    with serving(MAILING_DSN=database_dsn, MAILING_ENDPOINT_URL="http://nobody.invalid/") as (process, address):
        assert process.stderr is not None
        for line in iter(process.stderr.readline, ""):
            if "nobody.invalid does not resolve" in line:
                break
        assert health(address) == health_pb2.HealthCheckResponse.SERVING


def test_a_taken_port_is_one_sentence(database_dsn: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = ended("serve", MAILING_DSN=database_dsn, MAILING_LISTEN=address, MAILING_ENDPOINT_URL="http://h/")
    assert result.returncode == 1
    assert re.search(rf"^Cannot listen on {address}: .*\.$", result.stderr, re.MULTILINE)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_second_service_does_not_share_the_port_of_the_first(database_dsn: str) -> None:
    with serving(MAILING_DSN=database_dsn) as (_, address):
        assert ended("serve", MAILING_DSN=database_dsn, MAILING_LISTEN=address).returncode == 1


def test_bad_settings_end_it_before_anything_is_opened(tmp_path: Path) -> None:
    result = ended("serve", MAILING_DATA_DIR=str(tmp_path / "data"), MAILING_POOL_SIZE="0", MAILING_LEASE="x")
    assert result.returncode == 2
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["MAILING_LEASE", "MAILING_POOL_SIZE"]
    assert result.stdout == ""
    assert not (tmp_path / "data").exists()


def test_an_unusable_endpoint_ends_it_before_anything_is_opened(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    result = ended(
        "serve",
        MAILING_DATA_DIR=str(tmp_path / "data"),
        MAILING_ENDPOINT_URL="https://localhost/",
        MAILING_ENDPOINT_CA_FILE=str(tmp_path / "ca.pem"),
    )
    assert result.returncode == 2
    assert "MAILING_ENDPOINT_URL" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"MAILING_DSN": "postgresql://u:hidden@127.0.0.1:1/d"},
            r"u:\*\*\*@127.0.0.1:1/d \(MAILING_DSN\) cannot be used",
        ),
        ({"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": "1"}, r"\(POSTGRES_HOST\) cannot be used: .*refused"),
    ],
)
def test_a_database_that_is_away_is_one_sentence(settings: dict[str, str], sentence: str) -> None:
    result = ended("serve", MAILING_ENDPOINT_URL="http://h/", **settings)
    assert result.returncode == 1
    assert re.fullmatch(rf"The database at .*{sentence}.*\.\n", result.stderr)
    assert "hidden" not in result.stderr


async def test_migrations_run_by_hand_print_their_versions_once(empty_dsn: str) -> None:
    first, second = (ended("migrate", MAILING_DSN=empty_dsn) for _ in range(2))
    connection = await asyncpg.connect(empty_dsn)
    try:
        applied = [row["version"] for row in await connection.fetch("SELECT version FROM schema_migrations")]
    finally:
        await connection.close()
    assert first.stdout.split() == sorted(applied)
    assert (first.returncode, second.returncode, second.stdout) == (0, 0, "")


async def test_a_newer_schema_ends_the_start_with_a_sentence(pool: asyncpg.Pool, database_dsn: str) -> None:
    await pool.execute("INSERT INTO schema_migrations VALUES ('9999')")
    result = ended("serve", MAILING_DSN=database_dsn, MAILING_ENDPOINT_URL="http://h/")
    assert result.returncode == 1
    assert re.fullmatch(r"The database has schema version 9999, .*\n", result.stderr)


def test_dispatchers_beside_the_server_are_replaced_and_end_with_it(database_dsn: str) -> None:
    with serving(MAILING_DSN=database_dsn, MAILING_DISPATCHERS="2", MAILING_ENDPOINT_URL="http://127.0.0.1:9/") as (
        process,
        _,
    ):
        first = children_beside(process.pid, 2, known=[])
        os.kill(first[0], signal.SIGKILL)
        second = children_beside(process.pid, 2, known=first[:1])
        process.kill()
        for pid in second:
            gone(pid)


def test_the_soft_limit_of_descriptors_is_raised(database_dsn: str) -> None:
    with serving(limits="ulimit -Sn 200; ulimit -Hn 3000", MAILING_DSN=database_dsn) as (process, _):
        assert re.search(r"Max open files +3000 +3000 ", Path(f"/proc/{process.pid}/limits").read_text())


@pytest.mark.parametrize(("concurrency", "told"), [("", [("600", str(1024 + 10 + 13 + BESIDE))]), ("100", [])])
def test_too_few_descriptors_are_told_with_the_number_needed(
    database_dsn: str, concurrency: str, told: list[tuple[str, str]]
) -> None:
    settings = {"MAILING_ENDPOINT_URL": "http://127.0.0.1:9/", "MAILING_ENDPOINT_MAX_CONCURRENCY": concurrency}
    with serving(limits="ulimit -n 600", MAILING_DSN=database_dsn, **settings) as (process, _):
        process.terminate()
        errors = process.communicate(timeout=PATIENCE)[1]
    assert re.findall(r"(\d+) files and connections may be open, but up to (\d+) may be needed", errors) == told


def test_a_dispatcher_alone_needs_a_database() -> None:
    result = ended("dispatch")
    assert result.returncode == 2
    assert result.stderr.startswith("MAILING_DSN should be ")
