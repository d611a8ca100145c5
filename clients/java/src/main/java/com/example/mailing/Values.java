package com.example.mailing;

import com.example.mailing.v1.CivilDateTime;
import com.example.mailing.v1.ReceiveWindow;
import com.example.mailing.v1.TimeOfDay;
import com.google.protobuf.Duration;
import com.google.protobuf.Timestamp;
import java.time.DateTimeException;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.util.regex.Pattern;

/** Ids of messages, and values from text. All of it throws IllegalArgumentException that says what is expected. */
public final class Values {
  private static final int CLIENT_BITS = 32;
  private static final int SECONDS_PER_DAY = 86_400;
  private static final Pattern PHONE = Pattern.compile("\\+?([1-9]\\d{6,14})");
  private static final Pattern TIME = Pattern.compile("\\d{1,2}:\\d\\d(:\\d\\d)?");

  private Values() {}

  /**
   * {@return the id of the message of a mailing to a client}
   *
   * @param mailingId the mailing
   * @param clientId the client
   */
  public static long messageId(long mailingId, long clientId) {
    return mailingId << CLIENT_BITS | clientId;
  }

  /**
   * {@return the mailing of a message, read from the message's id}
   *
   * @param messageId the message
   */
  public static long mailingOf(long messageId) {
    return messageId >> CLIENT_BITS;
  }

  /**
   * {@return the client of a message, read from the message's id}
   *
   * @param messageId the message
   */
  public static long clientOf(long messageId) {
    return messageId & (1L << CLIENT_BITS) - 1;
  }

  /**
   * {@return the daily window from start to end, local times such as {@code 9:00} or {@code 09:00:30}} An end at or before the start
   * is on the next day: 22:00 to 06:00 crosses midnight, and equal times mean the whole day.
   *
   * @param start when the window opens
   * @param end when it closes
   */
  public static ReceiveWindow window(String start, String end) {
    LocalTime opens = timeOfDay(start);
    int length = timeOfDay(end).toSecondOfDay() - opens.toSecondOfDay();
    TimeOfDay time =
        TimeOfDay.newBuilder().setHours(opens.getHour()).setMinutes(opens.getMinute()).setSeconds(opens.getSecond()).build();
    Duration duration = Duration.newBuilder().setSeconds(length > 0 ? length : length + SECONDS_PER_DAY).build();
    return ReceiveWindow.newBuilder().setStart(time).setDuration(duration).build();
  }

  private static LocalTime timeOfDay(String text) {
    try {
      if (TIME.matcher(text).matches()) {
        return LocalTime.parse(text.indexOf(':') == 1 ? "0" + text : text);
      }
    } catch (DateTimeException outOfRange) {
      // told below
    }
    throw new IllegalArgumentException("\"" + text + "\" is not a time of day such as 09:00 or 09:00:30");
  }

  /**
   * {@return the digits of an international number as people write it: {@code +7 (916) 123-45-67}}
   *
   * @param text the text
   */
  public static String phone(String text) {
    var digits = PHONE.matcher(text.replaceAll("[ ().-]", ""));
    if (!digits.matches()) {
      throw new IllegalArgumentException(
          "\"" + text + "\" is not an international phone number of 7 to 15 digits such as +79161234567");
    }
    return digits.group(1);
  }

  /**
   * {@return a moment from text in RFC 3339, such as {@code 2030-01-31T09:00:00+03:00}}
   *
   * @param text the text
   */
  public static Timestamp moment(String text) {
    try {
      Instant at = OffsetDateTime.parse(text).toInstant();
      return Timestamp.newBuilder().setSeconds(at.getEpochSecond()).setNanos(at.getNano()).build();
    } catch (DateTimeException none) {
      throw new IllegalArgumentException(
          "\"" + text + "\" is not a moment with its zone such as 2030-01-31T09:00:00+03:00", none);
    }
  }

  /**
   * {@return a date and a time of day without a zone, from text such as {@code 2030-01-31T09:30:00}}
   *
   * @param text the text
   */
  public static CivilDateTime localTime(String text) {
    try {
      LocalDateTime at = LocalDateTime.parse(text);
      return CivilDateTime.newBuilder()
          .setYear(at.getYear())
          .setMonth(at.getMonthValue())
          .setDay(at.getDayOfMonth())
          .setHours(at.getHour())
          .setMinutes(at.getMinute())
          .setSeconds(at.getSecond())
          .build();
    } catch (DateTimeException none) {
      throw new IllegalArgumentException("\"" + text + "\" is not a local time such as 2030-01-31T09:30:00", none);
    }
  }
}
