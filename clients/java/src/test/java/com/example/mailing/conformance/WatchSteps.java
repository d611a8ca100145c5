package com.example.mailing.conformance;

import com.example.mailing.MailingClient;
import com.example.mailing.MessageWatch;
import com.example.mailing.v1.Mailing;
import com.example.mailing.v1.Message;
import com.example.mailing.v1.MessageChange;
import com.example.mailing.v1.WatchMessagesRequest;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Timestamp;
import com.google.protobuf.util.Timestamps;
import java.time.Duration;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** Watches of a mailing and of messages. */
final class WatchSteps {
  private record Key(long message, Message.Status status, Timestamp time) {}

  private final Main main;
  private final Main.Connection on;
  private final JsonObject asked;
  private final JsonObject meanwhile;
  private final Set<Key> seen = new HashSet<>();
  private final Map<Long, Timestamp> latest = new HashMap<>();
  private final JsonObject statuses = new JsonObject();
  private int repeated;
  private int disordered;
  private String silence = "short";
  private long before = System.nanoTime();

  WatchSteps(Main main, Main.Connection on, JsonObject step) {
    this.main = main;
    this.on = on;
    this.asked = step.getAsJsonObject("watch_messages");
    this.meanwhile = step.has("meanwhile") ? step.getAsJsonObject("meanwhile") : null;
  }

  static JsonElement mailing(MailingClient client, long id) throws InvalidProtocolBufferException {
    Mailing last = Mailing.getDefaultInstance();
    for (Mailing state : client.watchMailing(id)) {
      last = state;
    }
    return Json.object("last", Json.document(last));
  }

  JsonElement messages() throws Exception {
    WatchMessagesRequest.Builder request = WatchMessagesRequest.newBuilder().setMailingId(asked.get("mailing_id").getAsLong());
    request.setFromStart(asked.has("from_start") && asked.get("from_start").getAsBoolean());
    if (asked.has("resume_token")) {
      request.setResumeToken(asked.get("resume_token").getAsString());
    }
    long within = (long) (1000 * asked.get("within").getAsDouble());
    try (MessageWatch watch = on.client().watchMessages(request.build())) {
      CompletableFuture.delayedExecutor(within, TimeUnit.MILLISECONDS).execute(watch::close);
      while (seen.size() < asked.get("until").getAsInt() && watch.hasNext()) {
        take(watch.next());
      }
      JsonObject result = Json.object("changes", seen.size(), "repeated", repeated, "disordered", disordered);
      result.add("statuses", statuses);
      result.addProperty("token", watch.resumeToken());
      result.addProperty("silence", silence);
      return result;
    }
  }

  private void take(MessageChange change) throws Exception {
    long now = System.nanoTime();
    silence = Duration.ofNanos(now - before).toSeconds() > 45 ? "long" : silence;
    before = now;
    if (!seen.add(new Key(change.getMessageId(), change.getStatus(), change.getTime()))) {
      repeated++;
      return;
    }
    Timestamp earlier = latest.put(change.getMessageId(), change.getTime());
    if (earlier != null && Timestamps.compare(change.getTime(), earlier) < 0) {
      disordered++;
    }
    String name = change.getStatus().name().replace("STATUS_", "");
    statuses.addProperty(name, 1 + (statuses.has(name) ? statuses.get(name).getAsInt() : 0));
    if (meanwhile != null && seen.size() == meanwhile.get("after").getAsInt()) {
      if (meanwhile.has("token")) {
        on.token().set(meanwhile.get("token").getAsString());
      }
      main.control(meanwhile.getAsJsonArray("control"));
    }
  }
}
