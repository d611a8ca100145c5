"""SendTestMessage: a mailing's text, as one phone would get it, sent at once and outside of the ledger."""

from __future__ import annotations

from dispatcher.model.templates import parse
from mailing.v1 import mailing_service_pb2 as pb
from server.api.encoding.mailings import definition_of
from server.api.encoding.masking import shown_text
from server.api.encoding.messages import attempt_message
from server.domain.clients import ClientDefinition, check_phone, completed
from server.domain.mailings import MailingDefinition, check_mailing
from server.domain.validation import Violations, check_id
from server.endpoints.probes import EndpointProbes
from server.storage.clients import ClientStore
from server.storage.mailings import MailingStore

_LOOKED_AT = ("text", "endpoint")
"""What a test takes from a mailing that is not stored."""


class TestMessageCalls:
    """Answers SendTestMessage."""

    def __init__(self, mailings: MailingStore, clients: ClientStore, probes: EndpointProbes) -> None:
        self._mailings = mailings
        self._clients = clients
        self._probes = probes

    async def send(self, request: pb.SendTestMessageRequest) -> pb.SendTestMessageResponse:
        """Send the message. Raise InvalidFields, NotFound, EndpointUnknown, DatabaseUnavailable."""
        violations = Violations()
        given = None
        match request.WhichOneof("source"):
            case "mailing_id":
                check_id(request.mailing_id, "mailing_id", violations)
            case "mailing":
                given = definition_of(request.mailing, Violations())
                check_mailing(given, (), violations, _LOOKED_AT)
            case _:
                violations.add("mailing_id", "is required, or else mailing: what to send")
        check_phone(request.phone, "phone", violations)
        violations.check()
        mailing = given or (await self._mailings.get(request.mailing_id)).definition
        text = await self._rendered(mailing, request.phone)
        trial = await self._probes.send(mailing.endpoint, request.phone, text)
        return pb.SendTestMessageResponse(
            attempt=attempt_message(trial.attempt), message_id=trial.message_id, text=shown_text(text, request.phone)
        )

    async def _rendered(self, mailing: MailingDefinition, phone: str) -> str:
        """Return the text for the client with this phone, or for somebody of whom nothing but it is known."""
        client = await self._clients.find(phone) or completed(ClientDefinition(phone=phone, timezone=""))
        return parse(mailing.text).render(phone, client.operator_code, client.tag, client.timezone, client.attributes)
