package com.example.mailing.examples;

import com.example.mailing.MailingClient;
import com.example.mailing.v1.MessageChange;
import com.example.mailing.v1.WatchMessagesRequest;
import java.util.Objects;

/** Prints every message of a mailing as it ends, each once, across restarts of the service. Arguments: address, mailing. */
public final class Watch {
  private Watch() {}

  /** Run the example. */
  public static void main(String[] arguments) {
    String token = Objects.requireNonNullElse(System.getenv("MAILING_TOKEN"), "");
    var request = WatchMessagesRequest.newBuilder().setMailingId(Long.parseLong(arguments[1])).setFromStart(true).build();
    try (MailingClient client = MailingClient.builder(arguments[0]).token(token).build()) {
      for (MessageChange change : client.watchMessages(request)) {
        System.out.println(change.getMessageId() + " " + change.getClientId() + " " + change.getStatus());
      }
    }
  }
}
