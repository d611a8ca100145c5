/** What a failed call throws: `MailingError`, made from gRPC's status and its details. */

import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { AnySchema, DurationSchema } from "@bufbuild/protobuf/wkt";
import { status as Code, type ServiceError } from "@grpc/grpc-js";

export { Code };

/** One invalid field: its path in the request, such as `clients[17].timezone`, and a sentence. */
export interface FieldViolation {
  field: string;
  description: string;
}

const TRANSPORT_CODES: Code[] = [Code.ABORTED, Code.INTERNAL, Code.UNKNOWN, Code.UNAVAILABLE];

/** What gRPC says of failures on the way, and what that means. */
const HINTS: [words: RegExp, meaning: string][] = [
  [/certificate|ERR_TLS|SSL/, "TLS could not be agreed on: check the authority, the certificate and the name in it"],
  [/ECONNREFUSED/, "no service listens at this address"],
  [/Name resolution failed|ENOTFOUND/, "the name of the service cannot be resolved"],
  [/Protocol error/, "what answers at this address is no gRPC service, perhaps a web server or one with TLS"],
  [/Received HTTP status code/, "a proxy or a web server answered in place of the service"],
];

/** A call that failed. */
export class MailingError extends Error {
  override readonly name = "MailingError";
  /** A name of `ErrorReason` without its prefix, such as `PHONE_TAKEN`; empty when the answer is not the service's. */
  reason = "";
  /** Every invalid field of a refused request. */
  fields: FieldViolation[] = [];
  /** The facts of the reason. */
  metadata: Record<string, string> = {};
  /** How long the service asks to wait before the call is repeated, in milliseconds; 0 when it does not say. */
  retryDelayMs = 0;

  /** `sentence` is what the status says, without the code. */
  constructor(
    readonly code: Code,
    readonly sentence: string,
    options?: ErrorOptions,
  ) {
    super(`${Code[code]}: ${sentence}`, options);
  }

  /**
   * Whether the network, a proxy or something else on the way failed and not the service: the error has no
   * ErrorInfo and is ABORTED, INTERNAL, UNKNOWN or UNAVAILABLE.
   */
  get transport(): boolean {
    return this.reason === "" && TRANSPORT_CODES.includes(this.code);
  }

  /** Return the same failure with its details; what is no failure of a call is returned as it is. */
  static from(error: unknown): unknown {
    if (error instanceof MailingError || !isServiceError(error)) return error;
    const [details] = error.metadata.get("grpc-status-details-bin");
    const rich = details instanceof Uint8Array;
    const onTheWay = !rich && TRANSPORT_CODES.includes(error.code);
    const failure = new MailingError(error.code, onTheWay ? explained(error.details) : error.details, { cause: error });
    if (rich) failure.read(details);
    return failure;
  }

  /** Take the details of a google.rpc.Status. */
  private read(status: Uint8Array): void {
    for (const [number, bytes] of parts(status)) {
      if (number !== 3) continue;
      const { typeUrl, value } = fromBinary(AnySchema, bytes);
      if (typeUrl.endsWith("/google.rpc.ErrorInfo")) this.readInfo(value);
      if (typeUrl.endsWith("/google.rpc.BadRequest")) this.fields.push(...parts(value).map(([, one]) => violation(one)));
      if (typeUrl.endsWith("/google.rpc.RetryInfo")) {
        const delay = fromBinary(DurationSchema, parts(value)[0]?.[1] ?? new Uint8Array());
        this.retryDelayMs = Number(delay.seconds) * 1000 + delay.nanos / 1e6;
      }
    }
    if (this.fields.length > 0) {
      this.message = `${Code[this.code]}: ${this.fields.map((one) => `${one.field}: ${one.description}`).join("; ")}`;
    }
    if (this.reason !== "") this.message += ` (${this.reason})`;
  }

  private readInfo(info: Uint8Array): void {
    for (const [number, bytes] of parts(info)) {
      if (number === 1) this.reason = text(bytes);
      if (number === 3) {
        const entry = new Map(parts(bytes));
        this.metadata[text(entry.get(1))] = text(entry.get(2));
      }
    }
  }
}

/** Return what gRPC says of a failure on the way, with a sentence for people before it where there is one. */
function explained(sentence: string): string {
  const hint = HINTS.find(([words]) => words.test(sentence));
  return hint ? `${hint[1]} (${sentence})` : sentence;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error && "details" in error;
}

function violation(bytes: Uint8Array): FieldViolation {
  const found = new Map(parts(bytes));
  return { field: text(found.get(1)), description: text(found.get(2)) };
}

/** Return the strings and messages in a message, with their field numbers. */
function parts(message: Uint8Array): [number, Uint8Array][] {
  const reader = new BinaryReader(message);
  const found: [number, Uint8Array][] = [];
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (type === WireType.LengthDelimited) found.push([number, reader.bytes()]);
    else reader.skip(type, number);
  }
  return found;
}

function text(bytes: Uint8Array | undefined): string {
  return new TextDecoder().decode(bytes);
}
