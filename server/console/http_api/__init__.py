"""The API over HTTP with JSON, for callers without gRPC: a client of the API like the pages beside it.

Which paths there are comes from the `google.api.http` options of the protos. A call carries the caller's token
and request id; who may do what, sizes, rates and durations are the API's own. No cookie counts here.
"""

from server.console.http_api.bindings import PREFIX
from server.console.http_api.serving import HttpApi

__all__ = ["PREFIX", "HttpApi"]
