"""One mailing, live: progress, rate, statuses with reasons, latency, failures, log; and its verbs."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from starlette.responses import Response
from starlette.routing import Route

from mailing.errors import MailingError
from mailing.v1.admin_service_pb2 import WatchLogRequest
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import (
    CancelMailingRequest,
    DeleteMailingRequest,
    GetMailingRequest,
    PauseMailingRequest,
    ResumeMailingRequest,
    RetryMailingRequest,
)
from mailing.v1.message_pb2 import Message
from server.console.forms import Form, change
from server.console.live import Drawings, View, live_page
from server.console.visit import Console, Visit, number_in, page_route, redirect
from server.console.words import STATUSES, kind_of

RETRYABLE = (Message.STATUS_FAILED, Message.STATUS_UNKNOWN, Message.STATUS_EXPIRED)
_CONFIRMED = ("cancel", "retry", "delete")


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""
    path = "/mailings/{mailing_id:int}"
    verbs = {"pause": pause, "resume": resume, "cancel": cancel, "retry": retry, "delete": delete}
    return [
        *live_page(console, drawings, path, view),
        page_route(console, f"{path}/{{verb}}", ask),
        *(change(console, f"{path}/{verb}", handler) for verb, handler in verbs.items()),
    ]


async def view(visit: Visit) -> View:
    """Show a mailing; its messages only to those who may see them."""
    mailing_id = number_in(visit.request, "mailing_id")
    reads = {"mailing": visit.reads.mailing(mailing_id), "report": visit.reads.report(mailing_id)}
    missing: dict[str, None] = {}
    if visit.may.messages_read:
        reads["failures"] = visit.reads.failures(mailing_id)
    else:
        missing["failures"] = None
    reads["log"] = visit.reads.log(WatchLogRequest(mailing_id=mailing_id))
    parts = ("mailing_head", "verbs", "progress", "report", "failures", "mailing_log")
    return View("mailing.html", reads, parts, missing | {"mailing_id": mailing_id})


async def ask(visit: Visit) -> Response:
    """Name what will happen before what cannot be undone."""
    verb, mailing_id = visit.request.path_params["verb"], number_in(visit.request, "mailing_id")
    if verb not in _CONFIRMED:
        return redirect(f"/mailings/{mailing_id}")
    found = (await visit.call(visit.service.mailings.GetMailing, GetMailingRequest(mailing_id=mailing_id))).mailing
    counts = [(status, kind_of(status), getattr(found.progress, kind_of(status))) for status in STATUSES]
    return visit.page(
        "confirm.html", verb=verb, mailing=found, counts=counts, retryable=RETRYABLE, live="", part={},
        states=Mailing.State,
    )  # fmt: skip


async def pause(visit: Visit, form: Form) -> Response:
    """Stop sending of one mailing."""
    mailing_id = number_in(visit.request, "mailing_id")
    await visit.call(visit.service.mailings.PauseMailing, PauseMailingRequest(mailing_id=mailing_id))
    return redirect(f"/mailings/{mailing_id}")


async def resume(visit: Visit, form: Form) -> Response:
    """Go on with it."""
    mailing_id = number_in(visit.request, "mailing_id")
    await visit.call(visit.service.mailings.ResumeMailing, ResumeMailingRequest(mailing_id=mailing_id))
    return redirect(f"/mailings/{mailing_id}")


async def cancel(visit: Visit, form: Form) -> Response:
    """End it before its time."""
    mailing_id = number_in(visit.request, "mailing_id")
    await visit.call(visit.service.mailings.CancelMailing, CancelMailingRequest(mailing_id=mailing_id))
    return redirect(f"/mailings/{mailing_id}")


async def retry(visit: Visit, form: Form) -> Response:
    """Send again to those of the chosen statuses."""
    mailing_id = number_in(visit.request, "mailing_id")
    known = {kind_of(status): status for status in RETRYABLE}
    chosen = [known[one] for one in form.all("status") if one in known]
    if not chosen:
        raise MailingError(grpc.StatusCode.INVALID_ARGUMENT, message=visit.text("Choose at least one status."))
    await visit.call(visit.service.mailings.RetryMailing, RetryMailingRequest(mailing_id=mailing_id, statuses=chosen))
    return redirect(f"/mailings/{mailing_id}")


async def delete(visit: Visit, form: Form) -> Response:
    """Remove an ended mailing with its records."""
    mailing_id = number_in(visit.request, "mailing_id")
    await visit.call(visit.service.mailings.DeleteMailing, DeleteMailingRequest(mailing_id=mailing_id))
    return redirect("/mailings")
