"""gRPC's own thread, which tells the loop of every event: kept from waiting for the loop, and from its core.

It announces each event by a byte through a pair of sockets. The loop reads one byte a turn, and then
takes all events there are. With some hundreds of bytes unread the thread would wait for room, and from
then on hand on one event a turn: in a loop whose turns take milliseconds, answers and stream messages
would wait for seconds. A byte for which there is no room is not needed, since others will be read after
it would have been; so the sockets are made not to block.

It wakes up for each response that the loop writes. As an ordinary thread it would at once push aside what
runs on its core, most often the loop or the database it waits for; as a batch job it takes its turn, and
finds several events when it does. With a thousand watchers that is a quarter more messages a second.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress

import grpc.aio


def start_poller() -> None:
    """Begin gRPC's work for the running loop. Does nothing useful once gRPC was used in this process."""
    others, standard = set(threading.enumerate()), socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.0)  # what the sockets made meanwhile begin with
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
