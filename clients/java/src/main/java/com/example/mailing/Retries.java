package com.example.mailing;

import com.example.mailing.v1.AdminServiceGrpc;
import com.example.mailing.v1.ClientServiceGrpc;
import com.example.mailing.v1.DeliveryServiceGrpc;
import com.example.mailing.v1.MailingServiceGrpc;
import com.example.mailing.v1.MessageServiceGrpc;
import com.example.mailing.v1.ScheduleServiceGrpc;
import com.example.mailing.v1.SegmentServiceGrpc;
import com.google.protobuf.DescriptorProtos.MethodOptions.IdempotencyLevel;
import io.grpc.MethodDescriptor;
import io.grpc.ServiceDescriptor;
import io.grpc.protobuf.ProtoMethodDescriptorSupplier;
import java.time.Duration;
import java.util.List;
import java.util.Map;

/** Which calls may be repeated, and when. */
final class Retries {
  /** How often a call is made at the most, the first time included. */
  static final int MAX_ATTEMPTS = 5;

  static final Duration FIRST_PAUSE = Duration.ofMillis(100);
  static final Duration LONGEST_PAUSE = Duration.ofSeconds(5);

  private static final List<ServiceDescriptor> SERVICES =
      List.of(
          AdminServiceGrpc.getServiceDescriptor(),
          ClientServiceGrpc.getServiceDescriptor(),
          DeliveryServiceGrpc.getServiceDescriptor(),
          MailingServiceGrpc.getServiceDescriptor(),
          MessageServiceGrpc.getServiceDescriptor(),
          ScheduleServiceGrpc.getServiceDescriptor(),
          SegmentServiceGrpc.getServiceDescriptor());

  private Retries() {}

  /** Tell gRPC to repeat calls that are safe to repeat while the service is unavailable. */
  static Map<String, Object> serviceConfig() {
    List<Map<String, String>> names =
        SERVICES.stream()
            .flatMap(service -> service.getMethods().stream())
            .filter(Retries::repeatable)
            .map(method -> Map.of("service", method.getServiceName(), "method", method.getBareMethodName()))
            .toList();
    Map<String, Object> policy =
        Map.of(
            "maxAttempts", (double) MAX_ATTEMPTS,
            "initialBackoff", "0.1s",
            "maxBackoff", "5s",
            "backoffMultiplier", 2.0,
            "retryableStatusCodes", List.of("UNAVAILABLE"));
    return Map.of("methodConfig", List.of(Map.of("name", names, "retryPolicy", policy)));
  }

  /**
   * Return whether a method may be called again when the outcome of the first call is not known: reads, and creations, whose request id
   * makes the second call return what the first one made.
   */
  static boolean repeatable(MethodDescriptor<?, ?> method) {
    return creates(method)
        || method.getSchemaDescriptor() instanceof ProtoMethodDescriptorSupplier schema
            && schema.getMethodDescriptor().getOptions().getIdempotencyLevel() == IdempotencyLevel.NO_SIDE_EFFECTS;
  }

  static boolean creates(MethodDescriptor<?, ?> method) {
    String name = method.getBareMethodName();
    return name.startsWith("Create") || name.equals("TriggerSchedule");
  }
}
