package com.example.mailing;

import com.example.mailing.v1.Client;
import com.example.mailing.v1.ClientServiceGrpc.ClientServiceStub;
import com.example.mailing.v1.ImportClientsRequest;
import com.example.mailing.v1.ImportClientsResponse;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.util.Iterator;

/** One import: cuts clients into messages of at most 1 MiB and 500 clients, and sends them as fast as they are taken. */
final class ClientImport implements ClientResponseObserver<ImportClientsRequest, ImportClientsResponse> {
  static final int MAX_BYTES = 1 << 20;
  static final int MAX_CLIENTS = 500;
  private static final int OVERHEAD = 8; // bytes of a client's tag and length

  private final ClientServiceStub stub;
  private ClientCallStreamObserver<ImportClientsRequest> call;
  private ImportClientsResponse response;
  private Throwable failure;
  private boolean ended;
  private long sent;

  ClientImport(ClientServiceStub stub) {
    this.stub = stub;
  }

  ImportClientsResponse run(Iterator<Client> clients, ImportOptions options) {
    stub.importClients(this);
    try {
      sendAll(clients, options);
    } catch (RuntimeException | Error error) {
      call.cancel("the clients could not be read", error);
      throw error;
    }
    return answer();
  }

  @Override
  public void beforeStart(ClientCallStreamObserver<ImportClientsRequest> requests) {
    call = requests;
    call.setOnReadyHandler(this::wake);
  }

  @Override
  public synchronized void onNext(ImportClientsResponse value) {
    response = value;
  }

  @Override
  public synchronized void onError(Throwable error) {
    failure = error;
    ended = true;
    notifyAll();
  }

  @Override
  public synchronized void onCompleted() {
    ended = true;
    notifyAll();
  }

  private synchronized void wake() {
    notifyAll();
  }

  private void sendAll(Iterator<Client> clients, ImportOptions options) {
    ImportClientsRequest.Builder next = options.request().toBuilder().clearClients();
    int size = 0;
    while (clients.hasNext()) {
      Client client = clients.next();
      int more = client.getSerializedSize() + OVERHEAD;
      if (next.getClientsCount() == MAX_CLIENTS || next.getClientsCount() > 0 && size + more > MAX_BYTES) {
        if (!send(next, options)) {
          return;
        }
        next = ImportClientsRequest.newBuilder();
        size = 0;
      }
      next.addClients(client);
      size += more;
    }
    if (send(next, options)) {
      call.onCompleted();
    }
  }

  /** Send a message when the call takes it; return false if the service has refused already. */
  private boolean send(ImportClientsRequest.Builder request, ImportOptions options) {
    synchronized (this) {
      while (!ended && !call.isReady()) {
        await();
      }
      if (ended) {
        return false;
      }
    }
    call.onNext(request.build());
    sent += request.getClientsCount();
    options.progress().accept(sent);
    return true;
  }

  private synchronized ImportClientsResponse answer() {
    while (!ended) {
      await();
    }
    if (failure != null) {
      throw MailingException.from(failure);
    }
    return response;
  }

  private void await() {
    try {
      wait();
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted during an import", interrupted);
    }
  }
}
