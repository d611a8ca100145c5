"""What `mailing top` shows, kept up to date by two threads that survive outages of the service."""

from __future__ import annotations

import threading
from dataclasses import replace

import grpc
from google.protobuf.duration_pb2 import Duration

from mailing import MailingClient, MailingError
from mailing.cli.terminal.top_view import Snapshot
from mailing.errors import mailing_errors
from mailing.v1.admin_service_pb2 import WatchDispatchRequest
from mailing.v1.mailing_pb2 import Mailing

INTERVAL = 1.0
"""Seconds between two polls of the mailings."""

_SHOWN = 50
_STATES = (Mailing.STATE_RUNNING, Mailing.STATE_PAUSED, Mailing.STATE_SCHEDULED)
_NO_DISPATCH = {
    grpc.StatusCode.UNIMPLEMENTED: "this service does not show its dispatchers",
    grpc.StatusCode.PERMISSION_DENIED: "you may not see the dispatchers",
    grpc.StatusCode.UNAUTHENTICATED: "you may not see the dispatchers without a token",
}


class Monitor:
    """Reads the service from `start` to `stop`; `snapshot` is the newest state."""

    def __init__(self, client: MailingClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._call: grpc.Call | None = None
        self.snapshot = Snapshot()

    def start(self) -> None:
        """Poll the mailings once, which raises MailingError, then go on in the background."""
        self.poll()
        for run in (self._watch_mailings, self._watch_dispatch):
            threading.Thread(target=run, daemon=True, name=run.__name__).start()

    def stop(self) -> None:
        """End the threads."""
        self._stopped.set()
        if self._call is not None:
            self._call.cancel()

    def poll(self) -> None:
        """Read the mailings now."""
        mailings = self._client.list_mailings(_STATES, page_size=_SHOWN)
        found = [mailing for mailing, _ in zip(mailings, range(_SHOWN), strict=False)]
        # A paused mailing keeps its place.
        found.sort(key=lambda one: (one.state == Mailing.STATE_SCHEDULED, -one.id))
        self._update(mailings=found, outage="")

    def _update(self, **changes: object) -> None:
        with self._lock:
            self.snapshot = replace(self.snapshot, **changes)  # type: ignore[arg-type]

    def _watch_mailings(self) -> None:
        while not self._stopped.wait(INTERVAL):
            try:
                self.poll()
            except MailingError as error:
                self._update(outage=error.message or error.code.name)
            self.snapshot.rates.add(self.snapshot.rate)

    def _watch_dispatch(self) -> None:
        while not self._stopped.is_set():
            try:
                with mailing_errors():
                    self._read_dispatch()
            except MailingError as error:
                if error.code in _NO_DISPATCH:
                    self._update(problem=_NO_DISPATCH[error.code])
                    return
                self._update(dispatch=None)
            self._stopped.wait(INTERVAL)

    def _read_dispatch(self) -> None:
        self._call = self._client.admin.WatchDispatch(WatchDispatchRequest(min_interval=Duration(seconds=1)))
        for response in self._call:
            self._update(dispatch=response, problem="")
