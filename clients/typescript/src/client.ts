/** `MailingClient`: a connection to the service and what takes more than one call. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { Channel, type CallOptions, type Calls, type ConnectOptions } from "./channel.js";
import { importRequests, type ImportOptions } from "./import.js";
import { MessageWatch, watchMailing, type MessageQuery } from "./watch.js";
import { AdminService } from "./gen/mailing/v1/admin_service_pb.js";
import type { ClientSchema } from "./gen/mailing/v1/client_pb.js";
import { ClientService, type ImportClientsResponse } from "./gen/mailing/v1/client_service_pb.js";
import { DeliveryService } from "./gen/mailing/v1/delivery_service_pb.js";
import type { Mailing } from "./gen/mailing/v1/mailing_pb.js";
import { MailingService } from "./gen/mailing/v1/mailing_service_pb.js";
import { MessageService } from "./gen/mailing/v1/message_service_pb.js";
import { ScheduleService } from "./gen/mailing/v1/schedule_service_pb.js";
import { SegmentService } from "./gen/mailing/v1/segment_service_pb.js";

const SERVICES = [AdminService, ClientService, DeliveryService, MailingService, MessageService, ScheduleService, SegmentService];

/** A connection to the service. Its fields have the calls of every service. */
export class MailingClient {
  readonly clients: Calls<typeof ClientService>;
  readonly mailings: Calls<typeof MailingService>;
  readonly messages: Calls<typeof MessageService>;
  readonly delivery: Calls<typeof DeliveryService>;
  readonly schedules: Calls<typeof ScheduleService>;
  readonly segments: Calls<typeof SegmentService>;
  readonly admin: Calls<typeof AdminService>;
  readonly #channel: Channel;

  /**
   * Connect to the service at `address`, such as `mailing.example.com:50051` or `unix:/run/mailing`, at the first call.
   * Throw TypeError for what is no address.
   */
  constructor(address: string, options: ConnectOptions = {}) {
    const channel = new Channel(address, SERVICES, options);
    this.clients = channel.calls(ClientService);
    this.mailings = channel.calls(MailingService);
    this.messages = channel.calls(MessageService);
    this.delivery = channel.calls(DeliveryService);
    this.schedules = channel.calls(ScheduleService);
    this.segments = channel.calls(SegmentService);
    this.admin = channel.calls(AdminService);
    this.#channel = channel;
  }

  /** End the connection and every call on it. */
  close(): void {
    this.#channel.close();
  }

  /**
   * Create or update many clients, matched by phone: all of them or none. The sequence may be of any length; it is
   * read as fast as the service takes it. What it throws ends the import, and nothing is stored.
   */
  async importClients(
    clients: Iterable<MessageInitShape<typeof ClientSchema>> | AsyncIterable<MessageInitShape<typeof ClientSchema>>,
    options: ImportOptions = {},
  ): Promise<ImportClientsResponse> {
    return this.clients.importClients(importRequests(clients, options), options);
  }

  /**
   * Yield the mailing as it is now and after each change, until its final state. Reconnects by itself; leave the loop, or
   * abort `options.signal`, to end it. `minIntervalMs` is the minimum time between two states: 250 by default.
   */
  watchMailing(mailingId: bigint, options: { minIntervalMs?: number } & CallOptions = {}): AsyncGenerator<Mailing, void> {
    return watchMailing(this.delivery, mailingId, options);
  }

  /** Return a watch of messages: iterate over it. */
  watchMessages(query: MessageQuery, options: CallOptions = {}): MessageWatch {
    return new MessageWatch(this.delivery, this.messages, query, options);
  }
}
