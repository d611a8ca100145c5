/** The service's streams as iterators that reconnect, and yield each change once. */

import { setTimeout as sleep } from "node:timers/promises";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import type { CallOptions, Calls } from "./channel.js";
import { Code, MailingError } from "./errors.js";
import {
  MessageChangeSchema,
  type DeliveryService,
  type MessageChange,
  type WatchMessagesRequestSchema,
  type WatchMessagesResponse,
} from "./gen/mailing/v1/delivery_service_pb.js";
import type { Mailing } from "./gen/mailing/v1/mailing_pb.js";
import type { Message } from "./gen/mailing/v1/message_pb.js";
import type { MessageService } from "./gen/mailing/v1/message_service_pb.js";

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;
const PAGE_SIZE = 1000;
const RESUMABLE = ["READER_TOO_SLOW", "SHUTTING_DOWN", "CONNECTION_AGED"];
/* Reasons with which a stream ends that can be opened again. */

type Delivery = Calls<typeof DeliveryService>;
type Messages = Calls<typeof MessageService>;

/** Which messages to watch: those of one mailing or of all, from a token on, from the oldest change, or from now. */
export type MessageQuery = Exclude<MessageInitShape<typeof WatchMessagesRequestSchema>, { $typeName: string }>;

/** Yield the states of a mailing until its final one. */
export async function* watchMailing(
  delivery: Delivery,
  mailingId: bigint,
  options: { minIntervalMs?: number } & CallOptions,
): AsyncGenerator<Mailing, void> {
  const minInterval = options.minIntervalMs === undefined ? undefined : durationFromMs(options.minIntervalMs);
  const open = () => delivery.watchMailing({ mailingId, minInterval }, options);
  for await (const response of reconnecting(open, options.signal)) {
    if (response.mailing) yield response.mailing;
  }
}

/**
 * A watch of messages: `for await (const change of watch)` yields each change once, without end. Leave the loop, or abort
 * the signal, to end it.
 *
 * When the position is no longer kept (RESUME_TOKEN_EXPIRED) and the watch is of one mailing, the present state of every
 * message is read and yielded as a change, and the watch goes on from there.
 */
export class MessageWatch implements AsyncIterable<MessageChange> {
  /** The position after the last response whose changes were all yielded. Another watch of the same query continues there. */
  resumeToken: string;
  #relist = false;
  #repeats = new Repeats();

  constructor(
    private readonly delivery: Delivery,
    private readonly messages: Messages,
    private readonly query: MessageQuery,
    private readonly options: CallOptions,
  ) {
    this.resumeToken = query.resumeToken ?? "";
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<MessageChange, void> {
    const open = () => this.#open();
    for (;;) {
      try {
        for await (const response of reconnecting(open, this.options.signal)) yield* this.#receive(response);
        return;
      } catch (error) {
        if (!(error instanceof MailingError) || error.reason !== "RESUME_TOKEN_EXPIRED" || !this.query.mailingId) throw error;
        [this.resumeToken, this.#relist, this.#repeats] = ["", true, new Repeats()];
      }
    }
  }

  #open(): AsyncGenerator<WatchMessagesResponse, void> {
    this.#repeats.resume();
    const fromStart = (this.query.fromStart ?? false) && !this.#relist;
    return this.delivery.watchMessages({ ...this.query, fromStart, resumeToken: this.resumeToken }, this.options);
  }

  async *#receive(response: WatchMessagesResponse): AsyncGenerator<MessageChange, void> {
    if (this.#relist) {
      // The stream is open, so nothing is missed between the list and its first change.
      yield* this.#list();
      this.#relist = false;
    }
    yield* this.#repeats.fresh(response);
    this.resumeToken = response.resumeToken;
  }

  async *#list(): AsyncGenerator<MessageChange, void> {
    const { mailingId, statuses } = this.query;
    let pageToken = "";
    do {
      const page = await this.messages.listMessages({ mailingId, statuses, pageSize: PAGE_SIZE, pageToken }, this.options);
      for (const message of page.messages) yield changeOf(message);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }
}

/** The last change of a message: to the status that it has. */
function changeOf({ id, mailingId, clientId, status, reason, settleTime, createTime }: Message): MessageChange {
  return create(MessageChangeSchema, { messageId: id, mailingId, clientId, status, reason, time: settleTime ?? createTime });
}

/**
 * Drops what a resumed stream repeats: the changes that came with the token it resumes from. The service may send
 * one batch in several responses; only the token of the last one is after all of it.
 */
export class Repeats {
  #token = "";
  #same: string[] = [];
  #seen = new Set<string>();

  /** Return the changes of a response that did not come before the stream was resumed. */
  fresh(response: WatchMessagesResponse): MessageChange[] {
    if (response.resumeToken !== this.#token) [this.#token, this.#same] = [response.resumeToken, []];
    const found = response.changes.filter((change) => {
      const key = keyOf(change);
      this.#same.push(key);
      return !this.#seen.has(key);
    });
    if (found.length > 0 && found.length === response.changes.length) this.#seen.clear(); // all that could be repeated is past
    return found;
  }

  /** Expect repeated changes, since the stream is opened again. */
  resume(): void {
    for (const key of this.#same) this.#seen.add(key);
  }
}

function keyOf({ messageId, status, receipt, time }: MessageChange): string {
  return [messageId, status, receipt, ...momentOf(time)].join();
}

function momentOf(time: Timestamp | undefined): [bigint, number] {
  return [time?.seconds ?? 0n, time?.nanos ?? 0];
}

/** Yield the responses of a stream, which is opened again after each outage that follows the first response. */
async function* reconnecting<T>(open: () => AsyncGenerator<T, void>, signal?: AbortSignal): AsyncGenerator<T, void> {
  let [answered, refused, pause] = [false, false, FIRST_PAUSE_MS];
  for (;;) {
    try {
      for await (const response of open()) {
        [answered, refused, pause] = [true, false, FIRST_PAUSE_MS];
        yield response;
      }
      return;
    } catch (error) {
      if (signal?.aborted || !answered || !(error instanceof MailingError)) throw error;
      // A token was revoked or has expired: once, the function may have another one by now.
      const renewable = error.code === Code.UNAUTHENTICATED && !refused;
      if (!renewable && !passes(error)) throw error;
      refused ||= renewable;
      await sleep(Math.max(error.retryDelayMs, pause * (0.5 + Math.random() / 2)), undefined, signal ? { signal } : {});
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  }
}

/** Whether a broken stream can be opened again later. */
function passes(failure: MailingError): boolean {
  return (
    failure.code === Code.UNAVAILABLE || failure.transport || failure.retryDelayMs > 0 || RESUMABLE.includes(failure.reason)
  );
}
