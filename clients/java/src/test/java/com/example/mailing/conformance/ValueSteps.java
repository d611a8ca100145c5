package com.example.mailing.conformance;

import com.example.mailing.Values;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.InvalidProtocolBufferException;

/** Calls of the helpers for values. */
final class ValueSteps {
  private ValueSteps() {}

  static JsonElement value(JsonObject step) throws InvalidProtocolBufferException {
    try {
      return Json.object("value", helper(step.get("value").getAsString(), step.getAsJsonArray("of")));
    } catch (IllegalArgumentException error) {
      return invalid(error);
    }
  }

  /** Return what the library refuses without a call. */
  static JsonElement invalid(IllegalArgumentException error) {
    return Json.object("error", Json.object("invalid", true, "message", error.getMessage()));
  }

  private static JsonElement helper(String name, JsonArray of) throws InvalidProtocolBufferException {
    String first = of.get(0).getAsString();
    return switch (name) {
      case "message_id" -> text(Values.messageId(of.get(0).getAsLong(), of.get(1).getAsLong()));
      case "mailing_of" -> text(Values.mailingOf(of.get(0).getAsLong()));
      case "client_of" -> text(Values.clientOf(of.get(0).getAsLong()));
      case "window" -> Json.document(Values.window(first, of.get(1).getAsString()));
      case "phone" -> new JsonPrimitive(Values.phone(first));
      case "moment" -> Json.document(Values.moment(first));
      case "local_time" -> Json.document(Values.localTime(first));
      default -> throw new IllegalStateException("no helper " + name);
    };
  }

  private static JsonElement text(long id) {
    return new JsonPrimitive(String.valueOf(id));
  }
}
