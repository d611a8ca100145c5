package com.example.mailing;

import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import io.grpc.CallCredentials;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Status;
import java.time.Duration;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** Gives every call what it needs: a token, a deadline, a request id, and a second try where the service asks for one. */
final class Calls implements ClientInterceptor {
  private final Supplier<String> token;
  private final Duration timeout;

  Calls(Supplier<String> token, Duration timeout) {
    this.token = token;
    this.timeout = timeout;
  }

  @Override
  public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
    CallOptions complete = token == null ? options : options.withCallCredentials(new Bearer(token));
    if (method.getType() != MethodType.UNARY) {
      return next.newCall(method, complete);
    }
    if (complete.getDeadline() == null) {
      complete = complete.withDeadlineAfter(timeout.toMillis(), TimeUnit.MILLISECONDS);
    }
    return Retries.repeatable(method) ? new RepeatedCall<>(method, complete, next) : next.newCall(method, complete);
  }

  private static final class Bearer extends CallCredentials {
    private static final Metadata.Key<String> KEY = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    private final Supplier<String> token;

    Bearer(Supplier<String> token) {
      this.token = token;
    }

    @Override
    public void applyRequestMetadata(RequestInfo info, Executor executor, MetadataApplier applier) {
      executor.execute(() -> apply(applier));
    }

    private void apply(MetadataApplier applier) {
      Metadata headers = new Metadata();
      try {
        headers.put(KEY, "Bearer " + token.get());
      } catch (RuntimeException error) {
        applier.fail(Status.UNAUTHENTICATED.withDescription("no token could be had").withCause(error));
        return;
      }
      applier.apply(headers);
    }
  }

  /** A unary call that is made again after the time that a RetryInfo asks for, if the deadline allows it. */
  private static final class RepeatedCall<Q, R> extends ClientCall<Q, R> {
    private final MethodDescriptor<Q, R> method;
    private final CallOptions options;
    private final Channel next;
    private ClientCall<Q, R> current;
    private Listener<R> listener;
    private Metadata headers;
    private Q request;
    private int wanted;
    private int attempts;
    private boolean cancelled;

    RepeatedCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
      this.method = method;
      this.options = options;
      this.next = next;
    }

    @Override
    public synchronized void start(Listener<R> responseListener, Metadata requestHeaders) {
      listener = responseListener;
      headers = requestHeaders;
      begin();
    }

    @Override
    public synchronized void request(int messages) {
      wanted += messages;
      current.request(messages);
    }

    @Override
    public synchronized void sendMessage(Q message) {
      request = Retries.creates(method) ? withRequestId(message) : message;
      current.sendMessage(request);
    }

    @Override
    public synchronized void halfClose() {
      current.halfClose();
    }

    @Override
    public synchronized void cancel(String message, Throwable cause) {
      cancelled = true;
      current.cancel(message, cause);
    }

    private void begin() {
      attempts++;
      Metadata copy = new Metadata();
      copy.merge(headers);
      current = next.newCall(method, options);
      current.start(
          new SimpleForwardingClientCallListener<R>(listener) {
            @Override
            public void onClose(Status status, Metadata trailers) {
              if (!repeat(status, trailers)) {
                super.onClose(status, trailers);
              }
            }
          },
          copy);
    }

    private synchronized boolean repeat(Status status, Metadata trailers) {
      Duration delay = status.isOk() ? Duration.ZERO : MailingException.from(status, trailers).retryDelay();
      long millis = delay.toMillis();
      boolean inTime = options.getDeadline().timeRemaining(TimeUnit.MILLISECONDS) > millis;
      if (millis == 0 || cancelled || attempts == Retries.MAX_ATTEMPTS || !inTime) {
        return false;
      }
      CompletableFuture.delayedExecutor(millis, TimeUnit.MILLISECONDS).execute(this::again);
      return true;
    }

    private synchronized void again() {
      begin();
      current.request(wanted);
      current.sendMessage(request);
      current.halfClose();
      if (cancelled) {
        current.cancel("cancelled while waiting", null);
      }
    }

    /** Give a creation without a request id a random one, which stays the same when the call is repeated. */
    @SuppressWarnings("unchecked")
    private static <Q> Q withRequestId(Q request) {
      Message message = (Message) request;
      FieldDescriptor field = message.getDescriptorForType().findFieldByName("request_id");
      if (field == null || !message.getField(field).equals("")) {
        return request;
      }
      return (Q) message.toBuilder().setField(field, UUID.randomUUID().toString()).build();
    }
  }
}
