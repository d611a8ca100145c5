package com.example.mailing;

import com.example.mailing.v1.AdminServiceGrpc;
import com.example.mailing.v1.Client;
import com.example.mailing.v1.ClientServiceGrpc;
import com.example.mailing.v1.DeliveryServiceGrpc;
import com.example.mailing.v1.ImportClientsResponse;
import com.example.mailing.v1.MailingServiceGrpc;
import com.example.mailing.v1.MessageServiceGrpc;
import com.example.mailing.v1.ScheduleServiceGrpc;
import com.example.mailing.v1.SegmentServiceGrpc;
import com.example.mailing.v1.WatchMessagesRequest;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.time.Duration;
import java.util.Iterator;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/**
 * A connection to Mailing, the service that sends campaigns through your HTTP gateway and records the outcome of every message.
 *
 * <p>The methods named after services return generated blocking stubs, whose calls have a deadline, retries and request ids. They throw
 * {@link io.grpc.StatusRuntimeException}; {@link MailingException#from} reads its details. Safe to share between threads.
 */
public final class MailingClient implements AutoCloseable {
  /** The version of this library. */
  public static final String VERSION = "0.1.0";

  private static final int MAX_RECEIVED_BYTES = 64 << 20;
  private static final int MAX_METADATA_BYTES = 64 << 10;

  private final ManagedChannel channel;

  private MailingClient(ManagedChannel channel) {
    this.channel = channel;
  }

  /**
   * {@return a client of the service at an address such as {@code mailing.example.com:50051}, with neither token nor TLS}
   *
   * @param address host and port
   */
  public static MailingClient connect(String address) {
    return builder(address).build();
  }

  /**
   * Begin to describe a connection to the service at an address such as {@code mailing.example.com:50051}. Throw
   * IllegalArgumentException for what is no address.
   *
   * @param address host and port
   * @return what the connection is described with
   */
  public static Builder builder(String address) {
    return new Builder(Address.checked(address));
  }

  /**
   * Clients: the people a mailing can reach.
   *
   * @return the calls of ClientService
   */
  public ClientServiceGrpc.ClientServiceBlockingStub clients() {
    return ClientServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Mailings.
   *
   * @return the calls of MailingService
   */
  public MailingServiceGrpc.MailingServiceBlockingStub mailings() {
    return MailingServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Messages and their attempts.
   *
   * @return the calls of MessageService
   */
  public MessageServiceGrpc.MessageServiceBlockingStub messages() {
    return MessageServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Streams of what happens; see {@link #watchMailing} and {@link #watchMessages}.
   *
   * @return the calls of DeliveryService
   */
  public DeliveryServiceGrpc.DeliveryServiceBlockingStub delivery() {
    return DeliveryServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Schedules of recurring mailings.
   *
   * @return the calls of ScheduleService
   */
  public ScheduleServiceGrpc.ScheduleServiceBlockingStub schedules() {
    return ScheduleServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Stored filters.
   *
   * @return the calls of SegmentService
   */
  public SegmentServiceGrpc.SegmentServiceBlockingStub segments() {
    return SegmentServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Operations.
   *
   * @return the calls of AdminService
   */
  public AdminServiceGrpc.AdminServiceBlockingStub admin() {
    return AdminServiceGrpc.newBlockingStub(channel);
  }

  /** {@return the connection, for other stubs on it} */
  public ManagedChannel channel() {
    return channel;
  }

  /**
   * Create or update many clients, matched by phone: all of them or none. The iterator is read as fast as the service takes the
   * clients, so it may be of any length. What it throws ends the import, and nothing is stored.
   *
   * @param clients the clients, each with a phone
   * @param options what is changed, and who hears of the progress
   * @return how many were created, updated and unchanged
   */
  public ImportClientsResponse importClients(Iterator<Client> clients, ImportOptions options) {
    return new ClientImport(ClientServiceGrpc.newStub(channel)).run(clients, options);
  }

  /**
   * {@return the mailing as it is now and after each change, until its final state} Reconnects by itself.
   *
   * @param mailingId the mailing
   */
  public MailingWatch watchMailing(long mailingId) {
    return new MailingWatch(channel, mailingId);
  }

  /**
   * {@return a watch of what a request asks for} Reconnects by itself.
   *
   * @param request the query
   */
  public MessageWatch watchMessages(WatchMessagesRequest request) {
    return new MessageWatch(channel, request);
  }

  /** End the connection and every call on it. */
  @Override
  public void close() {
    channel.shutdownNow();
  }

  /** How to connect. */
  public static final class Builder {
    private final String address;
    private ChannelCredentials credentials = InsecureChannelCredentials.create();
    private Supplier<String> token;
    private Duration timeout = Duration.ofMinutes(1);

    private Builder(String address) {
      this.address = address;
    }

    /**
     * Send a bearer token with every call; none if it is null.
     *
     * @param token the bearer token
     * @return this
     */
    public Builder token(String token) {
      this.token = token == null ? null : () -> token;
      return this;
    }

    /**
     * Ask for the bearer token of every call; the supplier should keep it and renew it in time.
     *
     * @param token the bearer token
     * @return this
     */
    public Builder token(Supplier<String> token) {
      this.token = token;
      return this;
    }

    /**
     * Encrypt the connection, trusting Java's authorities.
     *
     * @return this
     */
    public Builder tls() {
      credentials = TlsChannelCredentials.create();
      return this;
    }

    /**
     * Encrypt the connection by PEM files: the authority to trust, and the caller's certificate and key (PKCS #8) where the service
     * wants them. Any of them may be null.
     *
     * @param ca the authority to trust
     * @param certificate the caller's certificate
     * @param key the certificate's key
     * @return this
     * @throws IOException if a file cannot be read
     */
    public Builder tls(File ca, File certificate, File key) throws IOException {
      TlsChannelCredentials.Builder tls = TlsChannelCredentials.newBuilder();
      if (ca != null) {
        tls.trustManager(ca);
      }
      if (certificate != null || key != null) {
        tls.keyManager(certificate, key);
      }
      credentials = tls.build();
      return this;
    }

    /**
     * Limit each unary call that has no deadline of its own: one minute by default.
     *
     * @param timeout how long a call may take
     * @return this
     */
    public Builder timeout(Duration timeout) {
      this.timeout = timeout;
      return this;
    }

    /** {@return the client; its first call connects} */
    public MailingClient build() {
      Calls calls = new Calls(token, timeout);
      return new MailingClient(
          Grpc.newChannelBuilder(address, credentials)
              .userAgent("mailing-java/" + VERSION)
              .maxInboundMessageSize(MAX_RECEIVED_BYTES)
              .maxInboundMetadataSize(MAX_METADATA_BYTES)
              .keepAliveTime(30, TimeUnit.SECONDS)
              .keepAliveTimeout(10, TimeUnit.SECONDS)
              .defaultLoadBalancingPolicy("round_robin")
              .defaultServiceConfig(Retries.serviceConfig())
              .enableRetry()
              .intercept(calls)
              .build());
    }
  }
}
