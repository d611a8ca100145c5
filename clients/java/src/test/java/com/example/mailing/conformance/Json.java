package com.example.mailing.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.util.JsonFormat;

/** JSON values, and messages as JSON. */
final class Json {
  private Json() {}

  /** Return an object of names and values, one after the other. */
  static JsonObject object(Object... namesAndValues) {
    JsonObject found = new JsonObject();
    for (int i = 0; i < namesAndValues.length; i += 2) {
      found.add((String) namesAndValues[i], element(namesAndValues[i + 1]));
    }
    return found;
  }

  private static JsonElement element(Object value) {
    if (value instanceof JsonElement known) {
      return known;
    }
    if (value instanceof Number number) {
      return new JsonPrimitive(number);
    }
    return value instanceof Boolean truth ? new JsonPrimitive(truth) : new JsonPrimitive((String) value);
  }

  static String text(JsonObject object, String name) {
    return object.has(name) ? object.get(name).getAsString() : null;
  }

  static JsonElement document(MessageOrBuilder message) throws InvalidProtocolBufferException {
    return JsonParser.parseString(JsonFormat.printer().print(message));
  }

  static Message message(JsonElement document, Message.Builder builder) throws InvalidProtocolBufferException {
    JsonFormat.parser().merge(document.toString(), builder);
    return builder.build();
  }

  /** Return what stands at a path of a value, or null. */
  static JsonElement at(JsonElement document, String path) {
    if (document == null || path.isEmpty()) {
      return document == null ? JsonNull.INSTANCE : document;
    }
    String[] parts = path.split("\\.", 2);
    String name = parts[0];
    String rest = parts.length == 2 ? parts[1] : "";
    if (document instanceof JsonObject object) {
      return name.equals("#") ? new JsonPrimitive(object.size()) : at(object.get(name), rest);
    }
    if (!(document instanceof JsonArray array)) {
      return JsonNull.INSTANCE;
    }
    if (name.equals("#")) {
      return new JsonPrimitive(array.size());
    }
    if (name.equals("*")) {
      JsonArray all = new JsonArray();
      array.forEach(one -> all.add(at(one, rest)));
      return all;
    }
    int position = Integer.parseInt(name);
    return position < array.size() ? at(array.get(position), rest) : JsonNull.INSTANCE;
  }
}
