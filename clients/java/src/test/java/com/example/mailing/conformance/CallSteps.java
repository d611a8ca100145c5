package com.example.mailing.conformance;

import com.example.mailing.ImportOptions;
import com.example.mailing.MailingClient;
import com.example.mailing.v1.AdminServiceGrpc;
import com.example.mailing.v1.Client;
import com.example.mailing.v1.ClientServiceGrpc;
import com.example.mailing.v1.ImportClientsRequest;
import com.example.mailing.v1.MailingServiceGrpc;
import com.example.mailing.v1.MessageServiceGrpc;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import io.grpc.CallOptions;
import io.grpc.MethodDescriptor;
import io.grpc.ServiceDescriptor;
import io.grpc.stub.ClientCalls;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/** Calls of any method, pages, and imports. */
final class CallSteps {
  private static final List<ServiceDescriptor> SERVICES =
      List.of(
          AdminServiceGrpc.getServiceDescriptor(),
          ClientServiceGrpc.getServiceDescriptor(),
          MailingServiceGrpc.getServiceDescriptor(),
          MessageServiceGrpc.getServiceDescriptor());

  private CallSteps() {}

  private static final class SourceException extends RuntimeException {
    private static final long serialVersionUID = 1;
  }

  @SuppressWarnings("unchecked")
  static JsonElement call(MailingClient client, String name, JsonElement request) throws InvalidProtocolBufferException {
    String full = "mailing.v1." + name.replace('.', '/');
    MethodDescriptor<Message, Message> method =
        (MethodDescriptor<Message, Message>)
            SERVICES.stream()
                .flatMap(one -> one.getMethods().stream())
                .filter(one -> one.getFullMethodName().equals(full))
                .findFirst()
                .orElseThrow();
    var marshaller = (MethodDescriptor.PrototypeMarshaller<Message>) method.getRequestMarshaller();
    Message input = Json.message(request, marshaller.getMessagePrototype().newBuilderForType());
    if (method.getType() == MethodDescriptor.MethodType.UNARY) {
      return Json.document(ClientCalls.blockingUnaryCall(client.channel(), method, CallOptions.DEFAULT, input));
    }
    JsonArray responses = new JsonArray();
    Iterator<Message> all = ClientCalls.blockingServerStreamingCall(client.channel(), method, CallOptions.DEFAULT, input);
    while (all.hasNext()) {
      responses.add(Json.document(all.next()));
    }
    return Json.object("responses", responses);
  }

  static JsonElement pages(MailingClient client, JsonObject step) throws InvalidProtocolBufferException {
    JsonObject request = step.getAsJsonObject("request");
    int items = 0;
    int pages = 0;
    while (true) {
      JsonElement page = call(client, step.get("pages").getAsString(), request);
      JsonElement count = Json.at(page, step.get("items").getAsString() + ".#");
      items += count.isJsonNull() ? 0 : count.getAsInt();
      pages++;
      JsonElement token = Json.at(page, "nextPageToken");
      if (token.isJsonNull()) {
        return Json.object("items", items, "pages", pages);
      }
      request.add("page_token", token);
    }
  }

  static JsonElement importClients(MailingClient client, JsonObject step) throws InvalidProtocolBufferException {
    AtomicLong progress = new AtomicLong();
    JsonArray clients = step.has("clients") ? step.getAsJsonArray("clients") : new JsonArray();
    Stream<Client> given = StreamSupport.stream(clients.spliterator(), false).map(CallSteps::row);
    int rows = step.has("rows") ? step.get("rows").getAsInt() : 0;
    Stream<Client> made = IntStream.range(0, rows).mapToObj(number -> row(step, number));
    try {
      ImportOptions options = new ImportOptions(ImportClientsRequest.getDefaultInstance(), progress::set);
      JsonObject found = Json.document(client.importClients(Stream.concat(given, made).iterator(), options)).getAsJsonObject();
      found.addProperty("progress", progress.get());
      return found;
    } catch (SourceException broken) {
      return Json.object("error", Json.object("source", true));
    }
  }

  private static Client row(JsonObject step, int number) {
    if (step.has("breaks_after") && number == step.get("breaks_after").getAsInt()) {
      throw new SourceException();
    }
    Client client = row(Main.replaced(step.get("client"), Map.of("row", String.format("%07d", number))));
    if (!step.has("fill")) {
      return client;
    }
    JsonObject fill = step.getAsJsonObject("fill");
    Client.Builder filled = client.toBuilder();
    for (int a = 0; a < fill.get("attributes").getAsInt(); a++) {
      filled.putAttributes("a" + a, "x".repeat(fill.get("characters").getAsInt()));
    }
    return filled.build();
  }

  private static Client row(JsonElement document) {
    try {
      return (Client) Json.message(document, Client.newBuilder());
    } catch (InvalidProtocolBufferException error) {
      throw new IllegalArgumentException(document.toString(), error);
    }
  }
}
