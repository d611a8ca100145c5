"""Gateways as their public documentation describes them: what they demand of a request, and what they answer.

Each is a function from a request to an answer. Who is asked for decides what happens: the last digit of the phone,
or the first word of another address, is one of `CASES`.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from tests.conformance.listener import Listener
from tests.conformance.scripted_endpoint import Request

CASES = {"success": "0", "throttled": "1", "bad number": "2", "opted out": "3", "bad credentials": "4"}
"""The last digit of a phone, by what happens to a message to it."""


class Reply(NamedTuple):
    """An answer: status, body, headers."""

    status: int
    body: object = None
    headers: Mapping[str, str] = {}


Gateway = Callable[[Request], Reply]


def form(request: Request) -> dict[str, str]:
    """Return the fields of a form; fail for a body that is none."""
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    return {name: values[0] for name, values in parse_qs(request.body.decode(), strict_parsing=True).items()}


def document(request: Request) -> Any:
    """Return a JSON body; fail for a body that is none."""
    assert request.headers["content-type"] == "application/json"
    return json.loads(request.body)


def demand(request: Request, line: str, authorization: str = "") -> None:
    """Fail unless the request has this first line, and shows who sends it."""
    assert request.line == f"{line} HTTP/1.1"
    assert request.headers.get("authorization", "") == authorization


def basic(user: str, password: str) -> str:
    """Return the header of a user and a password."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def twilio(request: Request) -> Reply:
    """Answer as https://www.twilio.com/docs/messaging/api/message-resource says."""
    demand(request, "POST /2010-04-01/Accounts/AC0000/Messages.json", basic("AC0000", "replace-me"))
    fields = form(request)
    assert fields["To"].startswith("+")
    assert {*fields} == {"To", "From", "Body"}
    match fields["To"][-1]:
        case "1":
            return Reply(429, {"code": 20429, "message": "Too Many Requests", "status": 429})
        case "2":
            return Reply(400, {"code": 21211, "message": "Invalid 'To' Phone Number", "status": 400})
        case "3":
            return Reply(400, {"code": 21610, "message": "Attempt to send to unsubscribed recipient", "status": 400})
        case "4":
            return Reply(401, {"code": 20003, "message": "Authenticate", "status": 401})
    return Reply(201, {"sid": "ID-1", "status": "queued", "to": fields["To"], "error_code": None})


def vonage(request: Request) -> Reply:
    """Answer as https://developer.vonage.com/en/api/sms says."""
    demand(request, "POST /sms/json")
    fields = form(request)
    assert {*fields} == {"api_key", "api_secret", "to", "from", "text", "type", "client-ref"}
    status = {"1": "1", "2": "3", "3": "7", "4": "4"}.get(fields["to"][-1], "0")
    message = {"to": fields["to"], "status": status}
    message |= {"message-id": "ID-1"} if status == "0" else {"error-text": "as documented"}
    return Reply(200, {"message-count": "1", "messages": [message]})


def infobip(request: Request) -> Reply:
    """Answer as https://www.infobip.com/docs/api/channels/sms/outbound-sms/send-sms-messages says."""
    demand(request, "POST /sms/3/messages", "App replace-me")
    [message] = document(request)["messages"]
    assert message["content"]["text"]
    [destination] = message["destinations"]
    match destination["to"][-1]:
        case "1":
            return Reply(429, {"errorCode": "E429", "description": "Too many requests"})
        case "4":
            return Reply(401, {"errorCode": "E401", "description": "Invalid credentials"})
    refused = {"groupId": 5, "groupName": "REJECTED", "id": 51, "name": "MISSING_TO"}
    pending = {"groupId": 1, "groupName": "PENDING", "id": 26, "name": "PENDING_ACCEPTED"}
    status = refused if destination["to"][-1] == "2" else pending
    return Reply(200, {"messages": [{"messageId": "ID-1", "status": status, "destination": destination["to"]}]})


def plivo(request: Request) -> Reply:
    """Answer as https://www.plivo.com/docs/messaging/api/message/send-a-message says."""
    demand(request, "POST /v1/Account/MA0000/Message/", basic("MA0000", "replace-me"))
    message = document(request)
    assert {*message} == {"src", "dst", "text"}
    match message["dst"][-1]:
        case "1":
            return Reply(429, {"api_id": "x", "error": "rate_limit_exceeded"})
        case "2":
            return Reply(400, {"api_id": "x", "error": "dst is not a valid phone number"})
        case "4":
            return Reply(401, "Could not verify your access level for that URL.")
    return Reply(202, {"message": "message(s) queued", "message_uuid": ["ID-1"], "api_id": "x"})


def whatsapp(request: Request) -> Reply:
    """Answer as https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes says."""
    demand(request, "POST /v21.0/106540352242922/messages", "Bearer replace-me")
    message = document(request)
    assert (message["messaging_product"], message["type"]) == ("whatsapp", "text")
    code = {"1": 130429, "2": 131026, "3": 131050, "4": 190}.get(message["to"][-1])
    if code is not None:
        status = {130429: 429, 190: 401}.get(code, 400)
        return Reply(status, {"error": {"message": "as documented", "type": "OAuthException", "code": code}})
    return Reply(200, {"messaging_product": "whatsapp", "messages": [{"id": "ID-1"}]})


def telegram(request: Request) -> Reply:
    """Answer as https://core.telegram.org/bots/api#making-requests says."""
    demand(request, "POST /bot110201543:replace-me/sendMessage")
    message = document(request)
    assert {*message} == {"chat_id", "text"}
    errors: dict[str, tuple[int, str, dict[str, object]]] = {
        "1": (429, "Too Many Requests: retry after 5", {"parameters": {"retry_after": 5}}),
        "2": (400, "Bad Request: chat not found", {}),
        "3": (403, "Forbidden: bot was blocked by the user", {}),
        "4": (401, "Unauthorized", {}),
    }
    if found := errors.get(message["chat_id"][-1]):
        status, description, more = found
        return Reply(status, {"ok": False, "error_code": status, "description": description, **more})
    return Reply(200, {"ok": True, "result": {"message_id": 77, "text": message["text"]}})


def fcm(request: Request) -> Reply:
    """Answer as https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode says."""
    demand(request, "POST /v1/projects/example-project/messages:send", "Bearer replace-me-with-an-access-token")
    message = document(request)["message"]
    assert {*message["notification"]} == {"title", "body"}
    errors = {
        "1": (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        "2": (404, "NOT_FOUND", "UNREGISTERED"),
        "4": (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
    }
    if found := errors.get(message["token"][-1]):
        status, name, code = found
        return Reply(status, {"error": {"code": status, "status": name, "details": [{"errorCode": code}]}})
    return Reply(200, {"name": "ID-1"})


def postmark(request: Request) -> Reply:
    """Answer as https://postmarkapp.com/developer/api/email-api#send-batch-emails and its error codes say."""
    demand(request, "POST /email/batch")
    assert request.headers["x-postmark-server-token"] == "replace-me"
    messages = document(request)
    assert all(message["To"].endswith("@example.com") for message in messages)
    whole = {"1": (429, 429), "4": (401, 10)}
    for message in messages:
        if found := whole.get(message["To"][0]):
            return Reply(found[0], {"ErrorCode": found[1], "Message": "as documented"})
    return Reply(200, [_postmark_result(message["To"]) for message in messages])


def _postmark_result(to: str) -> dict[str, object]:
    if found := {"2": 300, "3": 406}.get(to[0]):
        return {"ErrorCode": found, "Message": "as documented"}
    return {"To": to, "MessageID": "ID-1", "ErrorCode": 0, "Message": "OK"}


def sendgrid(request: Request) -> Reply:
    """Answer as https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send says."""
    demand(request, "POST /v3/mail/send", "Bearer replace-me")
    message = document(request)
    [personalization] = message["personalizations"]
    assert {*message} == {"personalizations", "from", "subject", "content"}
    status = {"1": 429, "2": 400, "4": 401}.get(personalization["to"][0]["email"][0])
    if status is not None:
        return Reply(status, {"errors": [{"message": "as documented", "field": None, "help": None}]})
    return Reply(202, None, {"X-Message-Id": "ID-1"})


def mailgun(request: Request) -> Reply:
    """Answer as https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages says."""
    demand(request, "POST /v3/mg.example.com/messages", basic("api", "replace-me"))
    fields = form(request)
    assert fields["v:message_id"].isdecimal()
    match fields["to"][0]:
        case "1":
            return Reply(429, {"message": "Too many requests"})
        case "2":
            return Reply(400, {"message": "to parameter is not a valid address. please check documentation"})
        case "4":
            return Reply(401, "Forbidden")
    return Reply(200, {"id": "ID-1", "message": "Queued. Thank you."})


def plain_form(request: Request) -> Reply:
    """A gateway with a line of text."""
    demand(request, "POST /send")
    words = {"1": "ERROR: TOO FAST", "2": "ERROR: NUMBER", "3": "ERROR: STOPPED", "4": "ERROR: LOGIN"}
    return Reply(200, f"{words.get(form(request)['to'][-1], 'OK')}\r\n")


def seed(request: Request) -> Reply:
    """The delivery protocol: docs/endpoints-and-delivery.md."""
    message = document(request)
    demand(request, f"POST /send/{message['id']}", "Bearer replace-me")
    match str(message["phone"])[-1]:
        case "1":
            return Reply(429, None, {"Retry-After": "5"})
        case "2":
            return Reply(200, {"code": 5, "message": "no such number"})
        case "4":
            return Reply(401)
    return Reply(200, {"code": 0, "message": "OK"})


GATEWAYS: Mapping[str, Gateway] = {
    "twilio": twilio,
    "vonage": vonage,
    "infobip": infobip,
    "plivo": plivo,
    "whatsapp": whatsapp,
    "telegram": telegram,
    "fcm": fcm,
    "postmark": postmark,
    "sendgrid": sendgrid,
    "mailgun": mailgun,
    "form": plain_form,
    "seed": seed,
}


class GatewayServer(Listener):
    """Answers `requests` as a gateway does, on a socket. `complaints` are the demands that some did not meet."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self._gateway = gateway
        self.complaints: list[str] = []
        self.requests = 0

    async def serve(self, reader: Any, writer: Any) -> None:
        """Answer one request after the other."""
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head[:-4].split("\r\n")
            headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            writer.write(self._answer(Request(1, line, headers, body)))
            await writer.drain()

    def _answer(self, request: Request) -> bytes:
        self.requests += 1
        try:
            reply = self._gateway(request)
        except (AssertionError, KeyError, ValueError) as error:
            self.complaints.append(repr(error))
            reply = Reply(500)
        text = reply.body if isinstance(reply.body, str) else "" if reply.body is None else json.dumps(reply.body)
        lines = [f"HTTP/1.1 {reply.status} X", f"Content-Length: {len(text.encode())}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n" + text).encode()
