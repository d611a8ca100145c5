package com.example.mailing;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;

/** A call that failed, with the details that the service gave. */
public final class MailingException extends RuntimeException {
  private static final long serialVersionUID = 1;
  private static final Set<Status.Code> TRANSPORT =
      EnumSet.of(Status.Code.ABORTED, Status.Code.INTERNAL, Status.Code.UNKNOWN, Status.Code.UNAVAILABLE);
  private static final Set<String> RESUMABLE = Set.of("READER_TOO_SLOW", "SHUTTING_DOWN", "CONNECTION_AGED");

  /**
   * One invalid field: its path in the request, such as {@code clients[17].timezone}, and a sentence.
   *
   * @param field the path of the field
   * @param description what is wrong with it
   */
  public record FieldViolation(String field, String description) {}

  private final transient Status status;
  /** What the status says. */
  private String sentence;

  /** The name of the reason. */
  private String reason = "";

  /** The facts of the reason. */
  private Map<String, String> metadata = Map.of();

  /** The invalid fields. */
  private final List<FieldViolation> fields = new ArrayList<>();

  /** How long to wait. */
  private Duration retryDelay = Duration.ZERO;

  private MailingException(Status status, String sentence, Throwable cause) {
    super(null, cause);
    this.status = status;
    this.sentence = sentence;
  }

  /**
   * {@return the same failure with its details; works for what any stub throws}
   *
   * @param error what was thrown
   */
  public static MailingException from(Throwable error) {
    if (error instanceof MailingException known) {
      return known;
    }
    Metadata trailers = error instanceof StatusRuntimeException one ? one.getTrailers() : null;
    trailers = error instanceof StatusException one ? one.getTrailers() : trailers;
    return from(Status.fromThrowable(error), trailers == null ? new Metadata() : trailers);
  }

  static MailingException from(Status status, Metadata trailers) {
    MailingException failure = new MailingException(status, sentenceOf(status), status.getCause());
    com.google.rpc.Status rich = StatusProto.fromStatusAndTrailers(status, trailers);
    if (rich != null) {
      rich.getDetailsList().forEach(failure::read);
    }
    if (failure.isTransport()) {
      failure.sentence = Hint.explained(failure.sentence);
    }
    return failure;
  }

  /** Return the description's first line with what lies at its root, such as a refused connection or a bad certificate. */
  private static String sentenceOf(Status status) {
    String told = status.getDescription() == null ? "" : status.getDescription().lines().findFirst().orElse("");
    Throwable root = status.getCause();
    while (root != null && root.getCause() != null) {
      root = root.getCause();
    }
    if (root == null || root.getMessage() == null || told.contains(root.getMessage())) {
      return told;
    }
    return told.isEmpty() ? root.getMessage() : told + ": " + root.getMessage();
  }

  private void read(Any detail) {
    try {
      if (detail.is(ErrorInfo.class)) {
        ErrorInfo info = detail.unpack(ErrorInfo.class);
        reason = info.getReason();
        metadata = info.getMetadataMap();
      } else if (detail.is(BadRequest.class)) {
        detail.unpack(BadRequest.class).getFieldViolationsList()
            .forEach(one -> fields.add(new FieldViolation(one.getField(), one.getDescription())));
      } else if (detail.is(RetryInfo.class)) {
        com.google.protobuf.Duration delay = detail.unpack(RetryInfo.class).getRetryDelay();
        retryDelay = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
      }
    } catch (InvalidProtocolBufferException ignored) {
      // A proxy may have broken the details; the status itself is good.
    }
  }

  @Override
  public String getMessage() {
    String text =
        fields.isEmpty()
            ? sentence
            : fields.stream().map(one -> one.field() + ": " + one.description()).collect(Collectors.joining("; "));
    return code() + ": " + text + (reason.isEmpty() ? "" : " (" + reason + ")");
  }

  /**
   * gRPC's status code.
   *
   * @return the code
   */
  public Status.Code code() {
    return status.getCode();
  }

  /**
   * A name of {@code ErrorReason} without its prefix, such as {@code PHONE_TAKEN}; empty when the answer is not the service's.
   *
   * @return the name, or an empty text
   */
  public String reason() {
    return reason;
  }

  /**
   * What the status says, in one sentence.
   *
   * @return the sentence
   */
  public String sentence() {
    return sentence;
  }

  /**
   * Every invalid field of a refused request.
   *
   * @return the fields, or none
   */
  public List<FieldViolation> fields() {
    return List.copyOf(fields);
  }

  /**
   * The facts of the reason.
   *
   * @return the facts, or none
   */
  public Map<String, String> metadata() {
    return metadata;
  }

  /**
   * How long the service asks to wait before the call is repeated; zero when it does not say.
   *
   * @return the time
   */
  public Duration retryDelay() {
    return retryDelay;
  }

  /**
   * Whether the network, a proxy or something else on the way failed and not the service: the error has no ErrorInfo and is ABORTED,
   * INTERNAL, UNKNOWN or UNAVAILABLE.
   *
   * @return whether it did
   */
  public boolean isTransport() {
    return reason.isEmpty() && TRANSPORT.contains(code());
  }

  /** Return whether a broken stream can be opened again later. */
  boolean passes() {
    return code() == Status.Code.UNAVAILABLE || isTransport() || !retryDelay.isZero() || RESUMABLE.contains(reason);
  }
}
