package com.example.mailing;

import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Iterator;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Supplier;

/** The responses of a stream, which is opened again after each outage that follows the first response. */
final class ResumingStream<T> implements AutoCloseable {
  private final ManagedChannel channel;
  private final Supplier<Iterator<T>> open;
  private Iterator<T> responses;
  private volatile Context.CancellableContext context;
  private volatile boolean closed;
  private boolean answered;
  private boolean refused;
  private Duration pause = Retries.FIRST_PAUSE;

  ResumingStream(ManagedChannel channel, Supplier<Iterator<T>> open) {
    this.channel = channel;
    this.open = open;
  }

  /** Wait for the next response and return it, or null at the end. Throw MailingException. */
  T next() {
    while (!closed) {
      try {
        if (responses == null) {
          begin();
        }
        if (!responses.hasNext()) {
          return null;
        }
        T response = responses.next();
        answered = true;
        refused = false;
        pause = Retries.FIRST_PAUSE;
        return response;
      } catch (StatusRuntimeException error) {
        responses = null;
        if (!closed) {
          waitOrThrow(MailingException.from(error));
        }
      }
    }
    return null;
  }

  /** End the stream, also from another thread. */
  @Override
  public void close() {
    closed = true;
    if (context != null) {
      context.cancel(null);
    }
  }

  private void begin() {
    context = Context.ROOT.withCancellation();
    Context before = context.attach();
    try {
      responses = open.get();
    } finally {
      context.detach(before);
    }
  }

  private void waitOrThrow(MailingException failure) {
    context.cancel(null);
    // A token was revoked or has expired: once, the supplier may have another one by now.
    boolean renewable = failure.code() == Status.Code.UNAUTHENTICATED && !refused;
    if (!answered || !renewable && !failure.passes()) {
      throw failure;
    }
    refused |= renewable;
    long longest = pause.toMillis();
    // Between half of the pause and all of it: many clients must not return at once.
    long wait = Math.max(failure.retryDelay().toMillis(), ThreadLocalRandom.current().nextLong(longest / 2, longest + 1));
    try {
      Thread.sleep(wait);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw failure;
    }
    pause = Duration.ofMillis(Math.min(2 * longest, Retries.LONGEST_PAUSE.toMillis()));
    channel.resetConnectBackoff();
  }
}
