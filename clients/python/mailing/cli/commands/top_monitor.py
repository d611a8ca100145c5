"""What `mailing top` knows of the service, kept up to date by two threads that outlive its absences."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import grpc
from google.protobuf.duration_pb2 import Duration

from mailing import MailingClient, MailingError
from mailing.cli.terminal.rates import RateHistory
from mailing.errors import mailing_errors
from mailing.v1.admin_service_pb2 import WatchDispatchRequest, WatchDispatchResponse
from mailing.v1.mailing_pb2 import Mailing

INTERVAL = 1.0
"""Seconds between two looks at the mailings."""

_SHOWN = 50
_STATES = (Mailing.STATE_RUNNING, Mailing.STATE_PAUSED, Mailing.STATE_SCHEDULED)
_NOT_FOR_US = {
    grpc.StatusCode.UNIMPLEMENTED: "this service does not show its dispatchers",
    grpc.StatusCode.PERMISSION_DENIED: "you may not see the dispatchers",
    grpc.StatusCode.UNAUTHENTICATED: "you may not see the dispatchers without a token",
}


@dataclass(frozen=True, slots=True)
class Board:
    """One moment. `dispatch` is None while nothing came; `problem` says why, `away` that nothing comes any more."""

    dispatch: WatchDispatchResponse | None = None
    mailings: Sequence[Mailing] = ()
    problem: str = ""
    away: str = ""
    rates: RateHistory = field(default_factory=RateHistory)

    @property
    def rate(self) -> float:
        """Deliveries a second, of all replicas or else of all mailings."""
        if self.dispatch is not None:
            return sum(one.rate_per_second for one in self.dispatch.replicas)
        return sum(one.progress.rate_per_second for one in self.mailings if one.progress.pending)


class Feed:
    """Reads the service from `start` to `stop`; `board` is the newest moment."""

    def __init__(self, client: MailingClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._call: grpc.Call | None = None
        self.board = Board()

    def start(self) -> None:
        """Reads the mailings once, which raises MailingError, and then goes on by itself."""
        self._look()
        for run in (self._watch_mailings, self._watch_dispatch):
            threading.Thread(target=run, daemon=True, name=run.__name__).start()

    def stop(self) -> None:
        """Ends the threads."""
        self._stopped.set()
        if self._call is not None:
            self._call.cancel()

    def hurry(self) -> None:
        """Reads the mailings at once."""
        self._look()

    def _update(self, **changes: object) -> None:
        with self._lock:
            self.board = replace(self.board, **changes)  # type: ignore[arg-type]

    def _look(self) -> None:
        mailings = self._client.list_mailings(_STATES, page_size=_SHOWN)
        found = [mailing for mailing, _ in zip(mailings, range(_SHOWN), strict=False)]
        # A mailing that is paused keeps its place.
        found.sort(key=lambda one: (one.state == Mailing.STATE_SCHEDULED, -one.id))
        self._update(mailings=found, away="")

    def _watch_mailings(self) -> None:
        while not self._stopped.wait(INTERVAL):
            try:
                self._look()
            except MailingError as error:
                self._update(away=error.message or error.code.name)
            self.board.rates.add(self.board.rate)

    def _watch_dispatch(self) -> None:
        while not self._stopped.is_set():
            try:
                with mailing_errors():
                    self._read_dispatch()
            except MailingError as error:
                if error.code in _NOT_FOR_US:
                    self._update(problem=_NOT_FOR_US[error.code])
                    return
                self._update(dispatch=None)
            self._stopped.wait(INTERVAL)

    def _read_dispatch(self) -> None:
        self._call = self._client.admin.WatchDispatch(WatchDispatchRequest(min_interval=Duration(seconds=1)))
        for response in self._call:
            self._update(dispatch=response, problem="")


def now() -> str:
    """Returns the time of day here."""
    return time.strftime("%H:%M:%S")
