"""What is told of calls in the log: one place for their events and sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dispatcher.model.states import Status
from dispatcher.outcome_events import Event, Level


def mailing_created(mailing_id: int, title: str, running: bool) -> list[Event]:
    """Return what is told of a new mailing: that it is there and, if its time has come, that it runs."""
    called = f"{title[:80]!r} " if title else ""
    created = Event(Level.INFO, "mailing.created", f"The mailing {called}was created.", mailing_id)
    return [created, mailing_event(mailing_id, "started")] if running else [created]


def mailing_event(mailing_id: int, what: str, **details: str) -> Event:
    """Return what is told of a mailing that was paused, resumed, cancelled or deleted; `what` says which."""
    return Event(Level.INFO, f"mailing.{what}", f"The mailing was {what}.", mailing_id, details=details)


def mailing_updated(mailing_id: int, changed: Collection[str]) -> list[Event]:
    """Return what is told of a mailing of which these fields changed; nothing when none did."""
    names = ", ".join(sorted(changed))
    text = f"The mailing was given another {names}."
    return [Event(Level.INFO, "mailing.updated", text, mailing_id, details={"fields": names})] if names else []


def mailing_retried(mailing_id: int, statuses: Collection[int]) -> Event:
    """Return what is told of a mailing whose messages with these statuses are being put back."""
    names = ", ".join(Status(status).name.lower() for status in sorted(statuses))
    text = f"The mailing is retried: what is {names} is put back."
    return Event(Level.INFO, "mailing.retried", text, mailing_id, details={"statuses": names})


def client_deleted(client_id: int, cancelled: int) -> Event:
    """Return what is told of a client who is gone, with so many messages."""
    text = f"The client was deleted; {cancelled} unsent messages were cancelled."
    return Event(Level.INFO, "client.deleted", text, 0, client_id, {"cancelled_messages": str(cancelled)})


def client_opted(client_id: int, out: bool) -> Event:
    """Return what is told of a client who opted out, or in again."""
    event, text = ("client.opted_out", "The client opted out.") if out else ("client.opted_in", "The client opted in.")
    return Event(Level.INFO, event, text, 0, client_id)


def clients_imported(created: int, updated: int, unchanged: int) -> Event:
    """Return what is told of an import."""
    details = {"created": str(created), "updated": str(updated), "unchanged": str(unchanged)}
    text = f"Clients were imported: {created} new, {updated} changed, {unchanged} as before."
    return Event(Level.INFO, "clients.imported", text, details=details)


def dispatch_settings_changed(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> Event:
    """Return what is told of settings, by name; None is the environment's value."""
    changed = {name: after[name] for name in after if after[name] != before[name]}
    details = {name: "as started" if value is None else f"{value:g}" for name, value in changed.items()}
    told = ", ".join(f"{name} {value}" for name, value in details.items())
    return Event(Level.INFO, "dispatch.settings", f"Settings of all dispatchers were changed: {told}.", details=details)


def dispatch_paused(paused: bool) -> Event:
    """Return what is told of the emergency stop."""
    if paused:
        return Event(Level.WARNING, "dispatch.paused", "All sending was stopped.")
    return Event(Level.INFO, "dispatch.resumed", "Sending goes on.")
