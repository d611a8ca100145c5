"""Where the console listens: over TLS, at a taken port, alone against a service, and without its packages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import httpx
import pytest

from mailing.cli.processes import running
from server.console import CannotOpenConsole
from tests.e2e.conftest import environment
from tests.support.api import serving
from tests.support.console import console_of
from tests.support.processes import ended
from tests.support.tls import TlsFolder


async def test_over_tls_cookies_are_for_tls_only(address: str, tmp_path: Path) -> None:
    folder = TlsFolder(tmp_path)
    files = {"certificate": folder.files.certificate, "key": folder.files.key}
    async with console_of(address, **files) as browser:
        assert browser.url.startswith("https://")
        answer = await browser.get("/")
        assert answer.status_code == 200
        assert "max-age" in answer.headers["strict-transport-security"]
        (cookie,) = answer.headers.get_list("set-cookie")
        assert cookie.startswith("__Host-mailing-form=")
        assert "Secure" in cookie
        folder.renew()
        folder.files.key.write_text("spoiled")
        async with httpx.AsyncClient(base_url=browser.url, verify=False) as other:
            assert (await other.get("/healthz")).text == "ok\n"


async def test_a_taken_port_is_one_sentence(address: str) -> None:
    async with console_of(address) as browser:
        taken = browser.url.removeprefix("http://")
        with pytest.raises(CannotOpenConsole, match=rf"Cannot listen on {taken} \(MAILING_CONSOLE_LISTEN\): .*in use"):
            async with console_of(address, listen=taken):
                pass


async def test_the_console_runs_alone_against_a_service(pool: asyncpg.Pool, tmp_path: Path) -> None:
    program = [str(Path(sys.executable).with_name("mailing-server")), "console"]
    async with serving(pool) as (_, address):
        command = [*program, "--address", address, "--listen", "127.0.0.1:0"]
        with running(command, re.compile(r"console on (\S+)"), tmp_path / "log", environment()) as found:
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"{found[1]}/mailings")
            assert "There is no mailing yet." in answer.text


def test_alone_it_needs_to_know_where_to_listen() -> None:
    program = [str(Path(sys.executable).with_name("mailing-server")), "console", "--address", "127.0.0.1:1"]
    told = subprocess.run(program, env=environment(), capture_output=True, text=True, timeout=60)
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "MAILING_CONSOLE_LISTEN" in told.stderr


def test_without_authentication_it_stays_on_loopback() -> None:
    told = ended("serve", MAILING_CONSOLE_LISTEN="0.0.0.0:0", MAILING_DSN="postgresql://127.0.0.1:1/nothing")
    assert told.returncode == 2
    assert "Without authentication the console listens on loopback only" in told.stderr


def test_without_its_packages_the_start_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "jinja2.py").write_text("raise ImportError('not installed')")
    settings = {"MAILING_CONSOLE_LISTEN": "127.0.0.1:0", "PYTHONPATH": str(tmp_path)}
    code = "import sys; from server.cli import main; sys.exit(main(sys.argv[1:]))"
    program = [sys.executable, "-c", code, "console", "--address", "127.0.0.1:1"]
    told = subprocess.run(program, env=environment(**settings), capture_output=True, text=True, timeout=60)
    assert told.returncode == 2, told.stderr
    assert "pip install 'mailing-server[console]'" in told.stderr
