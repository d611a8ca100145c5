"""Lets gRPC hand on any number of events in one turn of the loop.

gRPC's own thread announces each event by a byte through a pair of sockets. The loop reads one byte a
turn, and then takes all events there are. With some hundreds of bytes unread the thread would wait for
room, and from then on hand on one event a turn: in a loop whose turns take milliseconds, answers and
stream messages would wait for seconds. A byte for which there is no room is not needed, since others
will be read after it would have been; so the sockets are made not to block.
"""

from __future__ import annotations

import socket

import grpc.aio


def unblock_wakeups() -> None:
    """Begins gRPC's work for the running loop. Does nothing useful once gRPC was used in this process."""
    standard = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.0)  # what the sockets made meanwhile begin with
    try:
        grpc.aio.init_grpc_aio()
    finally:
        socket.setdefaulttimeout(standard)
