"""The order in which the calls of the API reference make sense on one service, and what they need beside it."""

from __future__ import annotations

import re

from docs.api_examples import EXAMPLES

FIRST = ("ClientService.CreateClient", "MailingService.CreateMailing")
LAST = (
    "MailingService.CancelMailing",
    "MailingService.DeleteMailing",
    "ClientService.DeleteClient",
    "ScheduleService.DeleteSchedule",
    "SegmentService.DeleteSegment",
)
INSERT_MESSAGE = """
INSERT INTO messages (bucket, mailing_id, client_id, status, attempts, created_at, due_at)
SELECT bucket, 1, id, $1, 0, now(), now() FROM clients WHERE phone = '79161234567'
"""


def example(name: str, ids: dict[str, str]) -> str:
    """Return the request of an example in JSON, with the ids that there are for the client and the message of it."""
    return re.sub(r"\b(27|4294967323)\b", lambda found: ids.get(found[0], found[0]), EXAMPLES[name]) or "{}"


def ids_of(client_id: int) -> dict[str, str]:
    """Return what stands for the ids of the examples once their client has this one."""
    return {"27": str(client_id), "4294967323": str(1 << 32 | client_id)}
