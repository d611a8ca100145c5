package com.example.mailing.conformance;

import com.example.mailing.MailingClient;
import com.example.mailing.MailingException;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.grpc.StatusRuntimeException;
import java.io.File;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicReference;

/** Runs the scenario that every client library passes, and prints what it saw. tests/clients/README.md describes both. */
public final class Main {
  /** A connection and the token that its callback returns. */
  record Connection(MailingClient client, AtomicReference<String> token) {}

  private static final Gson GSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();

  private final Map<String, String> variables = new HashMap<>();
  private final Map<String, Connection> connections = new HashMap<>();
  private final HttpClient http = HttpClient.newHttpClient();

  private Main() {}

  /** Run the steps of the file that the argument names. */
  public static void main(String[] arguments) throws Exception {
    Main main = new Main();
    JsonObject plan = JsonParser.parseString(Files.readString(Path.of(arguments[0]))).getAsJsonObject();
    plan.getAsJsonObject("variables").entrySet().forEach(one -> main.variables.put(one.getKey(), one.getValue().getAsString()));
    for (JsonElement step : plan.getAsJsonArray("steps")) {
      main.step(step);
    }
    System.exit(0); // connections may still be closing
  }

  private void step(JsonElement raw) throws Exception {
    JsonObject step = replaced(raw, variables).getAsJsonObject();
    JsonElement result = attempt(() -> perform(step));
    JsonObject saved = new JsonObject();
    if (step.has("save")) {
      step.getAsJsonObject("save").entrySet().forEach(one -> saved.add(one.getKey(), Json.at(result, one.getValue().getAsString())));
      saved.entrySet().forEach(one -> variables.put(one.getKey(), one.getValue().getAsString()));
    }
    JsonObject seen = new JsonObject();
    step.getAsJsonObject("expect").keySet().forEach(path -> seen.add(path, Json.at(result, path)));
    JsonObject line = new JsonObject();
    line.add("step", step.get("name"));
    line.add("seen", seen);
    line.add("saved", saved);
    line.add("error", Json.at(result, "error"));
    System.out.println(GSON.toJson(line));
  }

  static JsonElement replaced(JsonElement value, Map<String, String> variables) {
    String text = GSON.toJson(value);
    for (Map.Entry<String, String> one : variables.entrySet()) {
      String quoted = GSON.toJson(one.getValue());
      text = text.replace("${" + one.getKey() + "}", quoted.substring(1, quoted.length() - 1));
    }
    return JsonParser.parseString(text);
  }

  /** Return a result, or the failure of the call in the words of the scenario. */
  static JsonElement attempt(Callable<JsonElement> act) throws Exception {
    try {
      return act.call();
    } catch (StatusRuntimeException | MailingException error) {
      MailingException failure = MailingException.from(error);
      JsonArray fields = new JsonArray();
      failure.fields().forEach(one -> fields.add(Json.object("field", one.field(), "description", one.description())));
      JsonObject metadata = new JsonObject();
      failure.metadata().forEach(metadata::addProperty);
      JsonObject told = Json.object("code", failure.code().name(), "reason", failure.reason(), "message", failure.sentence());
      told.addProperty("hint", failure.sentence().split(" \\(", 2)[0]);
      told.add("fields", fields);
      told.add("metadata", metadata);
      told.addProperty("transport", failure.isTransport());
      return Json.object("error", told);
    }
  }

  private JsonElement perform(JsonObject step) throws Exception {
    if (step.has("connect")) {
      return connect(step);
    }
    if (step.has("control")) {
      return control(step.getAsJsonArray("control"));
    }
    if (step.has("value")) {
      return ValueSteps.value(step);
    }
    Connection on = connections.get(step.has("using") ? step.get("using").getAsString() : "main");
    if (step.has("each")) {
      return each(on, step);
    }
    if (step.has("call")) {
      return CallSteps.call(on.client(), step.get("call").getAsString(), step.get("request"));
    }
    if (step.has("pages")) {
      return CallSteps.pages(on.client(), step);
    }
    if (step.has("import")) {
      return CallSteps.importClients(on.client(), step.getAsJsonObject("import"));
    }
    if (step.has("watch_mailing")) {
      return WatchSteps.mailing(on.client(), step.get("watch_mailing").getAsLong());
    }
    if (step.has("watch_messages")) {
      return new WatchSteps(this, on, step).messages();
    }
    if (step.has("token")) {
      on.token().set(step.get("token").getAsString());
      return new JsonObject();
    }
    throw new IllegalArgumentException(step + " is a step of no known kind");
  }

  private JsonElement connect(JsonObject step) throws Exception {
    var token = new AtomicReference<>(Json.text(step, "token"));
    MailingClient.Builder builder;
    try {
      builder = MailingClient.builder(step.get("address").getAsString());
    } catch (IllegalArgumentException error) {
      return ValueSteps.invalid(error);
    }
    if (step.has("callback")) {
      builder.token(token::get);
    } else if (token.get() != null) {
      builder.token(token.get());
    }
    if (step.has("ca") || step.has("cert")) {
      builder.tls(file(step, "ca"), file(step, "cert"), file(step, "key"));
    }
    if (step.has("timeout")) {
      builder.timeout(Duration.ofMillis((long) (1000 * step.get("timeout").getAsDouble())));
    }
    connections.put(step.get("connect").getAsString(), new Connection(builder.build(), token));
    return new JsonObject();
  }

  private static File file(JsonObject step, String name) {
    return step.has(name) ? new File(step.get(name).getAsString()) : null;
  }

  /** Send commands to the test and return its last answer. */
  JsonElement control(JsonArray commands) throws Exception {
    JsonElement answer = JsonNull.INSTANCE;
    for (JsonElement command : commands) {
      HttpRequest request =
          HttpRequest.newBuilder(URI.create(variables.get("control")))
              .version(HttpClient.Version.HTTP_1_1)
              .POST(HttpRequest.BodyPublishers.ofString(GSON.toJson(command)))
              .build();
      HttpResponse<String> response = http.send(request, HttpResponse.BodyHandlers.ofString());
      if (response.statusCode() != 200) {
        throw new IllegalStateException(command + ": " + response.statusCode());
      }
      answer = JsonParser.parseString(response.body());
    }
    return answer;
  }

  private JsonElement each(Connection on, JsonObject step) throws Exception {
    JsonArray results = new JsonArray();
    for (JsonElement one : step.getAsJsonArray("each")) {
      JsonElement request = replaced(step.get("request"), Map.of("each", one.getAsString()));
      results.add(attempt(() -> CallSteps.call(on.client(), step.get("call").getAsString(), request)));
    }
    return Json.object("results", results);
  }
}
