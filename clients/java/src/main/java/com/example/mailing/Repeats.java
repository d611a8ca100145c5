package com.example.mailing;

import com.example.mailing.v1.MessageChange;
import com.example.mailing.v1.WatchMessagesResponse;
import com.google.protobuf.Timestamp;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Drops what a resumed stream repeats: the changes that came with the token it resumes from. The service may send one batch in several
 * responses; only the token of the last one is after all of it.
 */
final class Repeats {
  private record Key(long message, int status, int receipt, Timestamp time) {}

  private String token = "";
  private final List<Key> same = new ArrayList<>();
  private final Set<Key> seen = new HashSet<>();

  /** Return the changes of a response that did not come before the stream was resumed. */
  List<MessageChange> fresh(WatchMessagesResponse response) {
    if (!response.getResumeToken().equals(token)) {
      token = response.getResumeToken();
      same.clear();
    }
    List<MessageChange> found = new ArrayList<>();
    for (MessageChange change : response.getChangesList()) {
      Key key = new Key(change.getMessageId(), change.getStatusValue(), change.getReceiptValue(), change.getTime());
      same.add(key);
      if (!seen.contains(key)) {
        found.add(change);
      }
    }
    if (!found.isEmpty() && found.size() == response.getChangesCount()) {
      seen.clear(); // everything that could be repeated is past
    }
    return found;
  }

  /** Expect repeated changes, since the stream is opened again. */
  void resume() {
    seen.addAll(same);
  }
}
