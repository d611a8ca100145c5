package com.example.mailing;

import com.example.mailing.v1.MessageChange;
import com.example.mailing.v1.WatchMessagesResponse;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;

/** The library's own tests, without a framework: run {@code main}. */
public final class Checks {
  private Checks() {}

  /** Run all of them; the first that fails ends the program. */
  public static void main(String[] arguments) {
    aResumedStreamRepeatsNothing();
    onlyReadsAndCreationsAreRepeated();
    anErrorWithoutDetailsMayBeTheNetworks();
    valuesRefuseWhatIsNone();
    idsOfMessagesAreTakenApart();
    System.out.println("5 passed, 0 failed");
  }

  private static int fresh(Repeats repeats, String token, long... ids) {
    List<MessageChange> changes =
        LongStream.of(ids).mapToObj(id -> MessageChange.newBuilder().setMessageId(id).build()).toList();
    return repeats.fresh(WatchMessagesResponse.newBuilder().setResumeToken(token).addAllChanges(changes).build()).size();
  }

  private static void aResumedStreamRepeatsNothing() {
    Repeats repeats = new Repeats();
    check(fresh(repeats, "a", 1, 2) == 2 && fresh(repeats, "a", 3) == 1, "changes are missing");
    repeats.resume();
    check(fresh(repeats, "a", 1, 2) == 0, "changes are repeated");
    check(fresh(repeats, "b", 3, 4) == 1 && fresh(repeats, "c", 5) == 1, "changes are missing or repeated");
  }

  private static void onlyReadsAndCreationsAreRepeated() {
    String config = Retries.serviceConfig().toString();
    for (String name : List.of("GetMailing", "WatchMessages", "CreateMailing", "TriggerSchedule")) {
      check(config.contains("method=" + name), name);
    }
    for (String name : List.of("SendTestMessage", "ProbeEndpoint", "DeleteClient", "ImportClients")) {
      check(!config.contains("method=" + name), name);
    }
  }

  private static void anErrorWithoutDetailsMayBeTheNetworks() {
    Map<Status, Boolean> expected =
        Map.of(
            Status.UNAVAILABLE, true, Status.UNKNOWN, true, Status.INTERNAL, true, Status.ABORTED, true,
            Status.NOT_FOUND, false, Status.DEADLINE_EXCEEDED, false);
    expected.forEach(
        (status, transport) -> check(MailingException.from(status, new Metadata()).isTransport() == transport, status.toString()));
  }

  private static void valuesRefuseWhatIsNone() {
    List<Runnable> refused =
        List.of(
            () -> Values.window("9:00", "24:00"),
            () -> Values.phone("079161234567"),
            () -> Values.moment("2030-01-31 09:00"),
            () -> Values.localTime("tomorrow"));
    for (Runnable one : refused) {
      try {
        one.run();
      } catch (IllegalArgumentException told) {
        check(told.getMessage().contains("such as"), told.getMessage());
        continue;
      }
      check(false, "a bad value was taken");
    }
  }

  private static void idsOfMessagesAreTakenApart() {
    long id = Values.messageId(3_000_000, (1L << 32) - 1);
    check(Values.mailingOf(id) == 3_000_000 && Values.clientOf(id) == (1L << 32) - 1, String.valueOf(id));
  }

  private static void check(boolean holds, String told) {
    if (!holds) {
      throw new AssertionError(told);
    }
  }
}
