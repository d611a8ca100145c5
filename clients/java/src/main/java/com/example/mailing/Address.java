package com.example.mailing;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The address of a service. */
final class Address {
  private static final Pattern SCHEME = Pattern.compile("(unix|dns|xds):.*");
  private static final Pattern HOST_PORT = Pattern.compile("[^/]+:(\\d{1,5})");
  private static final int PORTS = 1 << 16;

  private Address() {}

  /** Return the address; throw for one that gRPC could only look up, to fail at the first call. */
  static String checked(String address) {
    Matcher found = HOST_PORT.matcher(address);
    boolean port = found.matches() && Integer.parseInt(found.group(1)) > 0 && Integer.parseInt(found.group(1)) < PORTS;
    if (port || SCHEME.matcher(address).matches()) {
      return address;
    }
    throw new IllegalArgumentException("\"" + address + "\" is no address of a service such as mailing.example.com:50051");
  }
}
