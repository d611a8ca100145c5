package com.example.mailing;

import com.example.mailing.v1.DeliveryServiceGrpc;
import com.example.mailing.v1.Mailing;
import com.example.mailing.v1.WatchMailingRequest;
import com.example.mailing.v1.WatchMailingResponse;
import io.grpc.ManagedChannel;
import java.util.Iterator;
import java.util.NoSuchElementException;

/**
 * The states of a mailing until its final one, for one loop: {@code for (Mailing state : watch)}. Reconnects by itself; {@link #close} ends it,
 * also from another thread. Throws {@link MailingException} for what waiting does not help.
 */
public final class MailingWatch implements Iterator<Mailing>, Iterable<Mailing>, AutoCloseable {
  private final ResumingStream<WatchMailingResponse> stream;
  private WatchMailingResponse coming;

  MailingWatch(ManagedChannel channel, long mailingId) {
    WatchMailingRequest request = WatchMailingRequest.newBuilder().setMailingId(mailingId).build();
    stream = new ResumingStream<>(channel, () -> DeliveryServiceGrpc.newBlockingStub(channel).watchMailing(request));
  }

  @Override
  public Iterator<Mailing> iterator() {
    return this;
  }

  @Override
  public boolean hasNext() {
    if (coming == null) {
      coming = stream.next();
    }
    return coming != null;
  }

  @Override
  public Mailing next() {
    if (!hasNext()) {
      throw new NoSuchElementException();
    }
    Mailing state = coming.getMailing();
    coming = null;
    return state;
  }

  @Override
  public void close() {
    stream.close();
  }
}
