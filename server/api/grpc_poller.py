"""gRPC's polling thread: neither blocks on the event loop nor competes with it for a core.

The thread announces each event by a byte through a pair of sockets. The loop reads one byte per
iteration, and then takes all pending events. With some hundreds of bytes unread the thread would block,
and from then on pass one event per iteration: in a loop whose iterations take milliseconds, responses
would wait for seconds. A byte that does not fit is not needed, since others will be read later; so
the sockets are made non-blocking.

The thread wakes up for each response that the loop writes. As an ordinary thread it would preempt what
runs on its core, most often the loop or the database it waits for; as a batch job it waits its turn, and
finds several events then. With a thousand watchers that is a quarter more messages a second.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress

import grpc.aio


def start_poller() -> None:
    """Start gRPC's polling for the running loop; call it before gRPC is used in this process."""
    others, standard = set(threading.enumerate()), socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.0)  # the default of the sockets made meanwhile
    try:
        grpc.aio.init_grpc_aio()
    finally:
        socket.setdefaulttimeout(standard)
    for thread in set(threading.enumerate()) - others:
        _yield_to_others(thread)


def _yield_to_others(thread: threading.Thread) -> None:
    if sys.platform == "linux" and thread.native_id is not None:
        with suppress(OSError):  # where it is forbidden, it is only slower
            os.sched_setscheduler(thread.native_id, os.SCHED_BATCH, os.sched_param(0))
