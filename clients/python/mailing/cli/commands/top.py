"""`mailing top`: mailings, endpoints and dispatchers live, with keys to pause and resume.

A full screen on a terminal, a line per update elsewhere, with --json a document per update.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer
from rich.live import Live

from mailing import MailingClient, MailingError
from mailing.cli.commands.top_monitor import INTERVAL, Monitor
from mailing.cli.session import Session, command
from mailing.cli.terminal.keys import DOWN, UP, ReadKey, key_reader, no_keys
from mailing.cli.terminal.output import document_of, print_line
from mailing.cli.terminal.rates import rate
from mailing.cli.terminal.tables import cell
from mailing.cli.terminal.top_view import Snapshot, TopView, now
from mailing.errors import mailing_errors
from mailing.v1.admin_service_pb2 import PauseDispatchRequest, ResumeDispatchRequest
from mailing.v1.mailing_pb2 import Mailing

_CALL_SECONDS = 10.0
_STOP_ALL = "stop all sending on all dispatchers? y: yes, any other key: no"
_PAUSE = "pause mailing {id}{title}? y: yes, any other key: no"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "top")(top)


def top(
    session: Session,
    updates: Annotated[int, typer.Option("--updates", min=0, help="End after so many updates; 0: never.")] = 0,
) -> None:
    """Show mailings, endpoints and dispatchers live; keys pause and resume them."""
    with session.connected() as client:
        monitor = Monitor(client)
        monitor.start()
        try:
            if session.json or not session.out.is_terminal:
                _write(session, monitor, updates)
            else:
                _show(session, client, monitor, updates)
        finally:
            monitor.stop()


def _write(session: Session, monitor: Monitor, updates: int) -> None:
    """Write a line or a document about every INTERVAL seconds."""
    number = 0
    while not updates or number < updates:
        no_keys(INTERVAL)
        number += 1
        if session.json:
            print_line(session, _document(monitor.snapshot))
        else:
            session.out.file.write(_line(monitor.snapshot) + "\n")
            session.out.file.flush()


def _document(snapshot: Snapshot) -> dict[str, object]:
    dispatch = None if snapshot.dispatch is None else document_of(snapshot.dispatch)
    return {"dispatch": dispatch, "mailings": [document_of(one) for one in snapshot.mailings]}


def _line(snapshot: Snapshot) -> str:
    parts = [f"{now()}  {rate(snapshot.rate)}/s"]
    if snapshot.dispatch is not None:
        replicas = snapshot.dispatch.replicas
        parts.append(f"{len(replicas)} dispatchers, {sum(one.in_flight for one in replicas):,} in flight")
        if snapshot.dispatch.settings.paused:
            parts.append("all sending is stopped")
    running = [one for one in snapshot.mailings if one.state == Mailing.STATE_RUNNING]
    parts.append(f"{len(running)} mailings running, {sum(one.progress.pending for one in running):,} pending")
    if snapshot.outage:
        parts.append("no answer")
    return ", ".join(parts)


def _show(session: Session, client: MailingClient, monitor: Monitor, updates: int) -> None:
    with key_reader() as keys, Live(console=session.out, screen=True, auto_refresh=False) as live:
        view = TopView(session.out, session.address, keys is not None)
        controls = _Controls(client, monitor, keys or no_keys)
        number = 0
        while not controls.ended and (not updates or number < updates):
            snapshot = monitor.snapshot
            screen = (
                view.help(snapshot) if controls.explaining else view.draw(snapshot, controls.chosen, controls.notice)
            )
            live.update(screen, refresh=True)
            controls.handle_key()
            number += 1


class _Controls:
    """Carries out keys: chooses a mailing, pauses and resumes it or all sending."""

    def __init__(self, client: MailingClient, monitor: Monitor, read_key: ReadKey) -> None:
        self._client = client
        self._monitor = monitor
        self._read_key = read_key
        self._asked: Callable[[], None] | None = None
        self._place = 0
        self.chosen = self._monitor.snapshot.mailings[0].id if self._monitor.snapshot.mailings else 0
        self.notice = ""
        self.ended = False
        self.explaining = False

    def handle_key(self) -> None:
        """Wait a moment for a key and carry it out."""
        self._follow_list()
        key = self._read_key(INTERVAL / 4)
        if not key:
            return
        self.notice = ""
        if self.explaining:
            self.explaining = False
        elif self._asked is not None:
            asked, self._asked = self._asked, None
            if key == "y":
                self._act(asked)
        else:
            self._carry_out(key)

    def _carry_out(self, key: str) -> None:
        if key == "q":
            self.ended = True
        elif key == "?":
            self.explaining = True
        elif key in (UP, "k"):
            self._move(-1)
        elif key in (DOWN, "j"):
            self._move(1)
        elif key == "p":
            self._toggle_mailing()
        elif key == "P":
            self._toggle_all()

    def _follow_list(self) -> None:
        """Choose the next mailing when the chosen one has ended and left the list."""
        ids = [one.id for one in self._monitor.snapshot.mailings]
        if self.chosen in ids:
            self._place = ids.index(self.chosen)
        else:
            self._place = max(0, min(self._place, len(ids) - 1))
            self.chosen = ids[self._place] if ids else 0

    def _move(self, by: int) -> None:
        mailings = self._monitor.snapshot.mailings
        if mailings:
            self._place = max(0, min(self._place + by, len(mailings) - 1))
            self.chosen = mailings[self._place].id

    def _act(self, action: Callable[[], None]) -> None:
        try:
            with mailing_errors():
                action()
            self._monitor.poll()
        except MailingError as error:
            self.notice = " ".join((error.message or error.code.name).split())

    def _toggle_mailing(self) -> None:
        """Resume the chosen mailing, or ask whether to pause it: that one, whichever is chosen by then."""
        mailing = next((one for one in self._monitor.snapshot.mailings if one.id == self.chosen), None)
        if mailing is None:
            return
        if mailing.state == Mailing.STATE_PAUSED:
            self._act(partial(self._resume, mailing.id))
        else:
            title = f" {cell(mailing.title).plain[:30]!r}" if mailing.title else ""
            self._ask(partial(self._pause, mailing.id), _PAUSE.format(id=mailing.id, title=title))

    def _ask(self, action: Callable[[], None], question: str) -> None:
        self._asked, self.notice = action, question

    def _pause(self, mailing_id: int) -> None:
        self._client.pause_mailing(mailing_id)
        self.notice = f"mailing {mailing_id} is paused"

    def _resume(self, mailing_id: int) -> None:
        self._client.resume_mailing(mailing_id)
        self.notice = f"mailing {mailing_id} is resumed"

    def _toggle_all(self) -> None:
        dispatch = self._monitor.snapshot.dispatch
        if dispatch is None:
            self.notice = self._monitor.snapshot.problem or "the dispatchers are not known yet"
        elif dispatch.settings.paused:
            self._act(self._resume_all)
        else:
            self._ask(self._stop_all, _STOP_ALL)

    def _stop_all(self) -> None:
        self._client.admin.PauseDispatch(PauseDispatchRequest(), timeout=_CALL_SECONDS)
        self.notice = "all sending is stopped"

    def _resume_all(self) -> None:
        self._client.admin.ResumeDispatch(ResumeDispatchRequest(), timeout=_CALL_SECONDS)
        self.notice = "sending is resumed"
