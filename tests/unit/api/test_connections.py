"""The connections of hosts are looked at without a trace."""

from __future__ import annotations

import os
import socket
from contextlib import closing

from server.api.connections import FILES, end_excess


def test_a_look_leaves_no_file_open() -> None:
    """Fails when what is no socket stays open once more: each look doubled it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, open(os.devnull) as other:
        port = listener.getsockname()[1]
        callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        accepted = [listener.accept()[0] for _ in callers]
        before = os.listdir(FILES)
        assert end_excess(port, 2) == {"127.0.0.1": 1}
        assert os.listdir(FILES) == before
        assert [one.recv(1) for one in callers[2:]] == [b""]
        assert not other.closed
        for one in (*callers, *accepted):
            one.close()
