"""Streams to callers: progress of mailings, changes of messages, the state of dispatching, the event log.

`streams` is the front; a hub serves the streams of one kind. Knows neither gRPC nor SQL.
"""

from server.watch.change_reader import ChangeBatch
from server.watch.change_tailer import Polling
from server.watch.event_hub import EventBatch
from server.watch.mailing_topic import View
from server.watch.streams import Streams, StreamSettings, StreamStores

__all__ = ["ChangeBatch", "EventBatch", "Polling", "StreamSettings", "StreamStores", "Streams", "View"]
