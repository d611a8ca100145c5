"""What is streamed: progress of mailings and changes of messages, for any number of watchers.

The database is read once for all watchers of a replica, whatever their number, and not at
all without watchers. Nothing is queued per watcher: each one holds a position and takes what
lies behind it when its connection has room. Knows neither gRPC nor SQL.
"""

from server.watch.admin_streams import AdminStreams
from server.watch.change_reader import Batch
from server.watch.change_tailer import Polling
from server.watch.mailing_topic import View
from server.watch.streams import Streams, StreamSettings

__all__ = ["AdminStreams", "Batch", "Polling", "StreamSettings", "Streams", "View"]
