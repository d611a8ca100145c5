package com.example.mailing;

import com.example.mailing.v1.DeliveryServiceGrpc;
import com.example.mailing.v1.ListMessagesRequest;
import com.example.mailing.v1.ListMessagesResponse;
import com.example.mailing.v1.Message;
import com.example.mailing.v1.MessageChange;
import com.example.mailing.v1.MessageServiceGrpc;
import com.example.mailing.v1.WatchMessagesRequest;
import com.example.mailing.v1.WatchMessagesResponse;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.util.Collections;
import java.util.Iterator;
import java.util.NoSuchElementException;

/**
 * The changes of messages, each once, without end, for one loop: {@code for (MessageChange change : watch)}. Reconnects by itself; {@link
 * #close} ends it, also from another thread. Throws {@link MailingException} for what waiting does not help.
 *
 * <p>When the position is no longer kept (RESUME_TOKEN_EXPIRED) and the watch is of one mailing, the present state of every message
 * is read and returned as a change, and the watch goes on from there.
 */
public final class MessageWatch implements Iterator<MessageChange>, Iterable<MessageChange>, AutoCloseable {
  private static final int PAGE_SIZE = 1000;

  private final ManagedChannel channel;
  private final WatchMessagesRequest request;
  private final ResumingStream<WatchMessagesResponse> stream;
  private Repeats repeats = new Repeats();
  private Iterator<MessageChange> listed = Collections.emptyIterator();
  private Iterator<MessageChange> changes = Collections.emptyIterator();
  private boolean relist;
  private String resumeToken;
  private String tokenBehind;

  MessageWatch(ManagedChannel channel, WatchMessagesRequest request) {
    this.channel = channel;
    this.request = request;
    this.resumeToken = request.getResumeToken();
    this.tokenBehind = resumeToken;
    this.stream = new ResumingStream<>(channel, this::open);
  }

  /**
   * The position after the last response whose changes were all returned. Another watch of the same query continues there.
   *
   * @return the token
   */
  public String resumeToken() {
    return resumeToken;
  }

  @Override
  public Iterator<MessageChange> iterator() {
    return this;
  }

  @Override
  public boolean hasNext() {
    while (!listed.hasNext() && !changes.hasNext()) {
      resumeToken = tokenBehind;
      WatchMessagesResponse response = receive();
      if (response == null) {
        return false;
      }
      if (relist) {
        // The stream is open, so nothing is missed between the list and its first change.
        listed = new Listing();
        relist = false;
      }
      changes = repeats.fresh(response).iterator();
      tokenBehind = response.getResumeToken();
    }
    return true;
  }

  @Override
  public MessageChange next() {
    if (!hasNext()) {
      throw new NoSuchElementException();
    }
    return listed.hasNext() ? listed.next() : changes.next();
  }

  @Override
  public void close() {
    stream.close();
  }

  private Iterator<WatchMessagesResponse> open() {
    repeats.resume();
    boolean fromStart = request.getFromStart() && !relist;
    return DeliveryServiceGrpc.newBlockingStub(channel)
        .watchMessages(request.toBuilder().setResumeToken(resumeToken).setFromStart(fromStart).build());
  }

  private WatchMessagesResponse receive() {
    try {
      return stream.next();
    } catch (MailingException failure) {
      if (!failure.reason().equals("RESUME_TOKEN_EXPIRED") || request.getMailingId() == 0) {
        throw failure;
      }
      relist = true;
      resumeToken = "";
      repeats = new Repeats();
      return stream.next();
    }
  }

  /** The last change of every message: to the status that it has. Reads page by page. */
  private final class Listing implements Iterator<MessageChange> {
    private Iterator<Message> page = Collections.emptyIterator();
    private String pageToken = "";
    private boolean last;

    @Override
    public boolean hasNext() {
      while (!page.hasNext() && !last) {
        ListMessagesResponse response = read();
        page = response.getMessagesList().iterator();
        pageToken = response.getNextPageToken();
        last = pageToken.isEmpty();
      }
      return page.hasNext();
    }

    @Override
    public MessageChange next() {
      Message message = page.next();
      return MessageChange.newBuilder()
          .setMessageId(message.getId())
          .setMailingId(message.getMailingId())
          .setClientId(message.getClientId())
          .setStatusValue(message.getStatusValue())
          .setReasonValue(message.getReasonValue())
          .setTime(message.hasSettleTime() ? message.getSettleTime() : message.getCreateTime())
          .build();
    }

    private ListMessagesResponse read() {
      ListMessagesRequest wanted =
          ListMessagesRequest.newBuilder()
              .setMailingId(request.getMailingId())
              .addAllStatusesValue(request.getStatusesValueList())
              .setPageSize(PAGE_SIZE)
              .setPageToken(pageToken)
              .build();
      try {
        return MessageServiceGrpc.newBlockingStub(channel).listMessages(wanted);
      } catch (StatusRuntimeException error) {
        throw MailingException.from(error);
      }
    }
  }
}
