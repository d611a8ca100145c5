/** The connection, and calls on it: deadline, token, request ids, retries and errors. */

import { readFileSync } from "node:fs";
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethod,
  type DescMethodClientStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type DescService,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Client, credentials, Metadata, type CallOptions as GrpcCallOptions, type ChannelCredentials } from "@grpc/grpc-js";
import { MailingError } from "./errors.js";
import { VERSION } from "./version.js";

const MAX_RECEIVED_BYTES = 64 << 20;
const MAX_ATTEMPTS = 5;
const DEFAULT_TIMEOUT_MS = 60_000;

/** PEM files for TLS: the authority to trust (Node's own when absent), and the caller's certificate and key. */
export interface TlsFiles {
  ca?: string;
  cert?: string;
  key?: string;
}

/** How to connect. */
export interface ConnectOptions {
  /** A bearer token, or a function that is asked for the token of every call and may renew it. */
  token?: string | (() => string | Promise<string>);
  /** Encrypt the connection: `true` trusts Node's authorities. Without it everything is plain text. */
  tls?: boolean | TlsFiles;
  /** Limits each unary call, in milliseconds: 60,000 by default. */
  timeoutMs?: number;
}

/** Options of one call. */
export interface CallOptions {
  /** Limits the call, in milliseconds. Streams have no limit of their own. */
  timeoutMs?: number;
  /** Cancels the call. */
  signal?: AbortSignal;
}

type Items<T> = Iterable<T> | AsyncIterable<T>;

type Call<M> =
  M extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncGenerator<MessageShape<O>, void>
      : M extends DescMethodClientStreaming<infer I, infer O>
        ? (requests: Items<MessageInitShape<I>>, options?: CallOptions) => Promise<MessageShape<O>>
        : never;

/** The calls of a service, by the methods' names in lowerCamelCase. */
export type Calls<S extends DescService> = { [K in keyof S["method"]]: Call<S["method"][K]> };

/** A connection. */
export class Channel {
  readonly #client: Client;
  readonly #token: () => Promise<string | undefined>;
  readonly #timeoutMs: number;

  constructor(address: string, services: DescService[], options: ConnectOptions = {}) {
    if (!isAddress(address)) {
      throw new TypeError(`"${address}" is no address of a service such as mailing.example.com:50051 or unix:/run/mailing`);
    }
    const { token } = options;
    this.#token = async () => (typeof token === "function" ? token() : token);
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#client = new Client(address, channelCredentials(options.tls), {
      "grpc.max_receive_message_length": MAX_RECEIVED_BYTES,
      "grpc.keepalive_time_ms": 30_000,
      "grpc.keepalive_timeout_ms": 10_000,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 5_000,
      "grpc.primary_user_agent": `mailing-typescript/${VERSION}`,
      "grpc.service_config": serviceConfig(services),
    });
  }

  /** Return the calls of a service. */
  calls<S extends DescService>(service: S): Calls<S> {
    return Object.fromEntries(service.methods.map((method) => [method.localName, this.#call(method)])) as Calls<S>;
  }

  /** End the connection and every call on it. */
  close(): void {
    this.#client.close();
  }

  #call(method: DescMethod): unknown {
    switch (method.methodKind) {
      case "unary":
        return this.#unary.bind(this, method);
      case "server_streaming":
        return this.#download.bind(this, method);
      case "client_streaming":
        return this.#upload.bind(this, method);
      default:
        throw new TypeError(`${method.name} streams in both directions, which this library does not know`);
    }
  }

  /** Make a unary call; wait and repeat it where the service asks for that and it is safe. */
  async #unary(method: DescMethod, init: MessageInitShape<DescMessage>, options: CallOptions = {}): Promise<unknown> {
    const request = toBinary(method.input, withRequestId(method, create(method.input, init)));
    const deadline = Date.now() + (options.timeoutMs ?? this.#timeoutMs);
    for (let attempt = 1; ; attempt++) {
      try {
        return fromBinary(method.output, await this.#once(method, request, deadline, options.signal));
      } catch (error) {
        const failure = MailingError.from(error);
        const delay = failure instanceof MailingError ? failure.retryDelayMs : 0;
        if (delay === 0 || attempt === MAX_ATTEMPTS || !repeatable(method) || Date.now() + delay > deadline) throw failure;
        await sleep(delay, undefined, options.signal ? { signal: options.signal } : {});
      }
    }
  }

  async #once(method: DescMethod, request: Uint8Array, deadline: number, signal?: AbortSignal): Promise<Uint8Array> {
    const metadata = await this.#metadata();
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(path(method), Buffer.from, bytes, request, metadata, { deadline }, (error, response) =>
        error ? reject(error) : resolve(response!),
      );
      cancelledBy(signal, call);
    });
  }

  async *#download(method: DescMethod, init: MessageInitShape<DescMessage>, options: CallOptions = {}): AsyncGenerator<unknown, void> {
    const request = toBinary(method.input, create(method.input, init));
    const metadata = await this.#metadata();
    const call = this.#client.makeServerStreamRequest(path(method), Buffer.from, bytes, request, metadata, limits(options));
    call.on("error", () => {}); // it is thrown below
    cancelledBy(options.signal, call);
    try {
      for await (const response of call) yield fromBinary(method.output, response as Uint8Array);
    } catch (error) {
      throw MailingError.from(error);
    } finally {
      call.cancel();
    }
  }

  /** Send requests as fast as they are taken. What the sequence throws is thrown, after the call was cancelled. */
  async #upload(method: DescMethod, requests: Items<MessageInitShape<DescMessage>>, options: CallOptions = {}): Promise<unknown> {
    const metadata = await this.#metadata();
    let answered = false;
    const { promise, resolve, reject } = deferred<Uint8Array>();
    const call = this.#client.makeClientStreamRequest(path(method), Buffer.from, bytes, metadata, limits(options), (error, response) =>
      error ? reject(error) : resolve(response!),
    );
    const answer = promise.finally(() => (answered = true));
    answer.catch(() => {}); // it is awaited below
    call.on("error", () => {}); // the callback has it
    cancelledBy(options.signal, call);
    try {
      for await (const request of requests) {
        if (answered) break; // the service has refused
        const more = call.write(toBinary(method.input, create(method.input, request)));
        if (!more) await Promise.race([new Promise((drained) => call.once("drain", drained)), answer.catch(() => {})]);
      }
    } catch (error) {
      call.cancel();
      throw error;
    }
    call.end();
    return fromBinary(
      method.output,
      await answer.catch((error: unknown) => {
        throw MailingError.from(error);
      }),
    );
  }

  async #metadata(): Promise<Metadata> {
    const metadata = new Metadata();
    const token = await this.#token();
    if (token) metadata.set("authorization", `Bearer ${token}`);
    return metadata;
  }
}

/** Whether gRPC can make something of an address: anything else it would look up, and fail at the first call. */
function isAddress(address: string): boolean {
  const port = /^[^/]+:(\d{1,5})$/.exec(address)?.[1];
  return /^(unix|dns|ipv4|ipv6|xds):/.test(address) || (port !== undefined && 0 < Number(port) && Number(port) < 65_536);
}

function channelCredentials(tls: boolean | TlsFiles | undefined): ChannelCredentials {
  if (!tls) return credentials.createInsecure();
  const { ca, cert, key } = tls === true ? ({} as TlsFiles) : tls;
  const [authority, chain, secret] = [ca, cert, key].map((file) => (file === undefined ? null : readFileSync(file)));
  return credentials.createSsl(authority, secret, chain);
}

/** Tell gRPC to use all addresses in turn and to repeat calls that are safe to repeat while the service is unavailable. */
export function serviceConfig(services: DescService[]): string {
  const methods = services.flatMap((service) => service.methods.filter(repeatable));
  return JSON.stringify({
    loadBalancingConfig: [{ round_robin: {} }],
    methodConfig: [
      {
        name: methods.map((method) => ({ service: method.parent.typeName, method: method.name })),
        retryPolicy: {
          maxAttempts: MAX_ATTEMPTS,
          initialBackoff: "0.1s",
          maxBackoff: "5s",
          backoffMultiplier: 2,
          retryableStatusCodes: ["UNAVAILABLE"],
        },
      },
    ],
  });
}

/**
 * Whether a method may be called again when the outcome of the first call is not known: reads, and creations, whose
 * request id makes the second call return what the first one made.
 */
function repeatable(method: DescMethod): boolean {
  return creates(method) || method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
}

function creates(method: DescMethod): boolean {
  return method.name.startsWith("Create") || method.name === "TriggerSchedule";
}

/** Give a creation without a request id a random one, which stays the same when the call is repeated. */
function withRequestId<T extends object>(method: DescMethod, request: T): T {
  if (!creates(method) || !("requestId" in request) || request.requestId !== "") return request;
  return { ...request, requestId: randomUUID() };
}

function path(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function limits({ timeoutMs }: CallOptions): GrpcCallOptions {
  return timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
}

function cancelledBy(signal: AbortSignal | undefined, call: { cancel(): void }): void {
  if (signal?.aborted) call.cancel();
  signal?.addEventListener("abort", () => call.cancel(), { once: true });
}

function bytes(buffer: Buffer): Uint8Array {
  return buffer;
}

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: unknown) => void } {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
}
