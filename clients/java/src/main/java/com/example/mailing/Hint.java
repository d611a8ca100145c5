package com.example.mailing;

import java.util.List;

/** What gRPC says of a failure on the way, and what that means. */
record Hint(String words, String meaning) {
  private static final String TLS = "TLS could not be agreed on: check the authority, the certificate and the name in it";
  private static final String NAME = "the name of the service cannot be resolved";
  private static final List<Hint> ALL =
      List.of(
          new Hint("certification path", TLS),
          new Hint("handshake", TLS),
          new Hint("certificate", TLS),
          new Hint("Connection refused", "no service listens at this address"),
          new Hint("UnknownHostException", NAME),
          new Hint("Unable to resolve host", NAME),
          new Hint(
              "First received frame was not SETTINGS",
              "what answers at this address is no gRPC service, perhaps a web server or one with TLS"),
          new Hint("HTTP status code", "a proxy or a web server answered in place of the service"));

  /** Return a sentence of gRPC's, with one for people before it where there is one. */
  static String explained(String sentence) {
    return ALL.stream()
        .filter(hint -> sentence.contains(hint.words))
        .findFirst()
        .map(hint -> hint.meaning + " (" + sentence + ")")
        .orElse(sentence);
  }
}
