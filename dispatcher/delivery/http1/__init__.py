"""The fast sender: HTTP/1.1 of our own, for one endpoint, over keep-alive connections.

It does what the delivery protocol needs and no more: no redirects, no proxies, no cookies,
no decompression, no pipelining. Every request ends in exactly one class:

| how it ends                                                               | error      | sent |
|---------------------------------------------------------------------------|------------|------|
| a complete answer, whatever its status                                    | NONE       | yes  |
| the name does not resolve                                                 | RESOLVE    | no   |
| refused, unreachable, or no connection (TLS included) within the connect  | CONNECT    | no   |
| timeout                                                                   |            |      |
| no file descriptor is free                                                | LOCAL      | no   |
| the handshake fails: certificate, name, version, or no TLS at all         | TLS        | no   |
| the total timeout passes: waiting for a connection or connecting          | TIMEOUT    | no   |
| the total timeout passes: after that                                      | TIMEOUT    | yes  |
| the connection ends before the answer does, or the sender is closed       | DISCONNECT | yes¹ |
| what comes is not HTTP/1.x, or switches protocols                         | PROTOCOL   | yes² |
| the head, the body or what is around it exceeds its cap                   | TOO_LARGE  | yes  |

¹ "no" if it happens before the request is written. ² "no" for a phone that is no number,
which is never sent.

A reused connection that ends before the first byte of an answer was closed while it was
idle: the request is repeated once, at once, on another connection, unless it is to be sent
at most once. The Idempotency-Key is the same, and it is no attempt of its own.

Whether a request may start is asked each time when there is a connection; one that may not
ends in no class, and its connection goes back to the others.
"""

from dispatcher.delivery.http1.pool import FastSender

__all__ = ["FastSender"]
