"""Changes of messages: dropping what a resumed stream repeats, and reading changes from a list."""

from __future__ import annotations

from collections.abc import Iterator

from mailing.v1.delivery_service_pb2 import MessageChange, WatchMessagesResponse
from mailing.v1.message_pb2 import Message

_Key = tuple[int, int, int, int, int]


class Repeats:
    """Drops what a resumed stream repeats: the changes that came with the token it resumes from.

    The service may send one batch in several responses; only the token of the last one is
    after the whole batch.
    """

    def __init__(self) -> None:
        self._token = ""
        self._same: list[WatchMessagesResponse] = []
        self._seen: set[_Key] = set()

    def new_changes(self, response: WatchMessagesResponse) -> Iterator[MessageChange]:
        """Yield the changes of a response that did not come before the stream was resumed."""
        if response.resume_token != self._token:
            self._token, self._same = response.resume_token, []
        self._same.append(response)
        if not self._seen:
            yield from response.changes
            return
        fresh = [change for change in response.changes if _key(change) not in self._seen]
        if len(fresh) == len(response.changes) > 0:
            self._seen.clear()  # everything that could be repeated is past
        yield from fresh

    def resume(self) -> None:
        """Expect repeated changes, since the stream is opened again."""
        self._seen |= {_key(change) for response in self._same for change in response.changes}


def _key(change: MessageChange) -> _Key:
    return change.message_id, int(change.status), int(change.receipt), change.time.seconds, change.time.nanos


def change_of(message: Message) -> MessageChange:
    """Return the last change of a message: to the status that it has."""
    return MessageChange(
        message_id=message.id,
        mailing_id=message.mailing_id,
        client_id=message.client_id,
        status=message.status,
        reason=message.reason,
        time=message.settle_time if message.HasField("settle_time") else message.create_time,
    )
