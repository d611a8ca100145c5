"""What is streamed: progress of mailings and changes of messages, for any number of watchers.

The database is read once for all watchers of a replica, whatever their number, and not at
all without watchers. Nothing is queued per watcher: each one holds a position and takes what
lies behind it when its connection has room. Knows neither gRPC nor SQL.
"""

from server.streams.admin import AdminStreams
from server.streams.reader import Batch
from server.streams.service import Streams, StreamSettings
from server.streams.tailer import Polling
from server.streams.topic import View

__all__ = ["AdminStreams", "Batch", "Polling", "StreamSettings", "Streams", "View"]
