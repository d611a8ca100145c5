package com.example.mailing.examples;

import com.example.mailing.ImportOptions;
import com.example.mailing.MailingClient;
import com.example.mailing.Values;
import com.example.mailing.v1.Client;
import com.example.mailing.v1.ClientFilter;
import com.example.mailing.v1.CreateMailingRequest;
import com.example.mailing.v1.Mailing;
import java.util.List;
import java.util.Objects;

/** Imports two clients, sends them a mailing and shows its progress to the end. The argument is the service's address. */
public final class Send {
  private Send() {}

  /** Run the example. */
  public static void main(String[] arguments) {
    String token = Objects.requireNonNullElse(System.getenv("MAILING_TOKEN"), "");
    try (MailingClient client = MailingClient.builder(arguments[0]).token(token).build()) {
      Client first =
          Client.newBuilder()
              .setPhone("70100000001")
              .setTimezone("Europe/Moscow")
              .setTag("example")
              .setReceiveWindow(Values.window("00:00", "00:00"))
              .build();
      Client second = Client.newBuilder().setPhone("70100000002").setTimezone("Asia/Omsk").setTag("example").build();
      var imported = client.importClients(List.of(first, second).iterator(), ImportOptions.DEFAULT);
      System.out.println("new clients: " + imported.getCreated());

      Mailing mailing =
          Mailing.newBuilder()
              .setText("Hello {phone}")
              .setFilter(ClientFilter.newBuilder().addTags("example"))
              .setAudienceMode(Mailing.AudienceMode.AUDIENCE_MODE_SNAPSHOT)
              .build();
      long id = client.mailings().createMailing(CreateMailingRequest.newBuilder().setMailing(mailing).build()).getMailing().getId();
      for (Mailing state : client.watchMailing(id)) {
        var progress = state.getProgress();
        System.out.println(state.getState() + " " + progress.getDelivered() + " of " + progress.getTotal());
      }
    }
  }
}
