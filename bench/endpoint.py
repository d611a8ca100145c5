"""The endpoint that benchmarks deliver to: it accepts every message and remembers its id and body.

`nginx`, where it is installed, for raw speed: one worker, ids and bodies kept in a buffered access
log. `small`, a Python process of its own (`bench.small_endpoint`), anywhere and whenever an
answer is to take its time. Both answer `{"code":0,"message":"OK"}` and are gone with us.

nginx reads a body only where it is used: here a mirror that throws it away. The answer is that to a
method which its content knows nothing of, made a good one; it takes no longer than without a body.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import orjson

from bench.measure import free_port

_PATIENCE = 30.0  # seconds for a start, a stop, or a log to be written

_NGINX_CONFIGURATION = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    log_format requests escape=none '$request_uri $request_body';
    access_log {folder}/requests.log requests buffer=1m flush=1s;
    client_body_buffer_size 64k;
    default_type application/json;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{port} backlog=8192;
        location / {{
            mirror /thrown-away;
            mirror_request_body on;
            empty_gif;
            error_page 405 =200 /accepted;
        }}
        location = /thrown-away {{ internal; return 204; }}
        location = /accepted {{ internal; return 200 '{{"code":0,"message":"OK"}}'; }}
    }}
}}
"""


class RunningEndpoint(Protocol):
    """An endpoint in a process of its own."""

    @property
    def url(self) -> str:
        """Where the message id is to be appended."""

    def requests(self) -> Iterator[tuple[int, bytes]]:
        """Yield the id in the URL and the body of every request so far, repeated ones as often as they came."""

    def stop(self) -> None:
        """End the process and forget the ids. May be called again."""


def find_nginx() -> str | None:
    """Return where nginx is installed, None where it is not."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def message_ids(endpoint: RunningEndpoint) -> list[int]:
    """Return the id of every message that an endpoint so far, repeated ones as often as they came."""
    return [message_id for message_id, _ in endpoint.requests()]


def parse_requests(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the ids and bodies of requests that are lines of a path, a blank and a body; others are left out.

    A request to /batch is a list of bodies.
    """
    for line in lines:
        path, _, body = line.rstrip(b"\n").partition(b" ")
        if path[1:].isdigit():
            yield int(path[1:]), body
        elif path == b"/batch":
            yield from ((one["id"], orjson.dumps(one)) for one in orjson.loads(body))


def start_endpoint(kind: str = "auto", delay_ms: int = 0) -> RunningEndpoint:
    """Start an endpoint on a free port of 127.0.0.1 and return it once it answers.

    `kind` is `nginx`, `small`, or `auto`: nginx where it is installed and nothing is to be
    delayed. `delay_ms` is how long an answer takes; nginx has no such thing. Raise
    ValueError for a kind that cannot be had and RuntimeError when the process does not start.
    """
    nginx = find_nginx()
    if kind == "auto":
        kind = "nginx" if nginx and not delay_ms else "small"
    if kind == "small":
        return SmallEndpoint(delay_ms)
    if kind != "nginx":
        raise ValueError(f"kind must be auto, nginx or small, not {kind!r}")
    if nginx is None or delay_ms:
        raise ValueError("nginx cannot delay answers" if nginx else "nginx is not installed")
    return NginxEndpoint(nginx)


class NginxEndpoint:
    """nginx with one worker; the requests are read from its access log."""

    def __init__(self, program: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="mailing-nginx-"))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        configuration = self._folder / "nginx.conf"
        configuration.write_text(_NGINX_CONFIGURATION.format(folder=self._folder, port=port))
        self._process = subprocess.Popen([program, "-p", self._folder, "-c", configuration], stderr=subprocess.DEVNULL)
        self._marks = 0
        atexit.register(self.stop)
        self._await_start()

    def _await_start(self) -> None:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until and self._process.poll() is None:
            try:
                self._mark()
            except urllib.error.URLError:
                time.sleep(0.02)
            else:
                return
        error_log = self._folder / "error.log"
        reason = error_log.read_text() if error_log.exists() else ""
        self.stop()
        raise RuntimeError(f"nginx did not start: {reason}")

    def _mark(self) -> bytes:
        """Make a request that no message makes, and return its line of the log."""
        self._marks += 1
        urllib.request.urlopen(f"{self.url}-{self._marks}", timeout=_PATIENCE).read()
        return b"/-%d \n" % self._marks

    def requests(self) -> Iterator[tuple[int, bytes]]:
        """Yield the requests in the log, after all that came before this call is in it."""
        mark = self._mark()
        self._process.send_signal(signal.SIGUSR1)  # reopens the log, and writes its buffer out before
        until = time.monotonic() + _PATIENCE
        with (self._folder / "requests.log").open("rb") as log:
            while mark not in _tail(log):
                if time.monotonic() > until:
                    raise RuntimeError("nginx did not write its log")
                time.sleep(0.02)
            log.seek(0)
            yield from parse_requests(log)

    def stop(self) -> None:
        """End nginx and remove its files."""
        _end(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.stop)


class SmallEndpoint:
    """The Python endpoint; the requests are asked from it."""

    def __init__(self, delay_ms: int = 0, busy: int = 0) -> None:
        command = [sys.executable, "-m", "bench.small_endpoint", "--delay-ms", str(delay_ms), "--busy", str(busy)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        atexit.register(self.stop)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()
        if not self.url:
            self.stop()
            raise RuntimeError("the small endpoint did not start")

    def requests(self) -> Iterator[tuple[int, bytes]]:
        """Yield the requests it holds."""
        with urllib.request.urlopen(f"{self.url}requests", timeout=_PATIENCE) as answer:
            yield from parse_requests(answer)

    def stop(self) -> None:
        """End the process."""
        _end(self._process)
        if self._process.stdout is not None:
            self._process.stdout.close()
        atexit.unregister(self.stop)


def _tail(log: BinaryIO) -> bytes:
    """Return the last lines of a growing file."""
    log.seek(-min(4096, log.seek(0, os.SEEK_END)), os.SEEK_END)
    return log.read()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
