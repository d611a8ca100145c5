"""What is streamed: progress of mailings and changes of messages, for any number of watchers.

The database is read once for all watchers of a replica, whatever their number, and not at
all without watchers. Nothing is queued per watcher: each one holds a position and takes what
lies behind it when its connection has room. Knows neither gRPC nor SQL.
"""

from server.streams.hub import MailingHub, View
from server.streams.reader import Batch, MessageReader
from server.streams.retention import Retention
from server.streams.ring import RING_CHANGES
from server.streams.service import Streams, StreamSettings

__all__ = ["RING_CHANGES", "Batch", "MailingHub", "MessageReader", "Retention", "StreamSettings", "Streams", "View"]
