/** Cuts an import into messages of at most 1 MiB and 500 clients. */

import { create, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import type { CallOptions } from "./channel.js";
import { ClientSchema, type Client } from "./gen/mailing/v1/client_pb.js";
import { ImportClientsRequestSchema, type ImportClientsRequest } from "./gen/mailing/v1/client_service_pb.js";

const MAX_BYTES = 1 << 20;
const MAX_CLIENTS = 500;
const OVERHEAD = 8;
/* Bytes of a client's tag and length. */

/** Options of an import: those of the request, and a callback. */
export interface ImportOptions extends CallOptions {
  /** The fields that the rows speak of; without it each row changes what it sets. */
  updateMask?: MessageInitShape<typeof ImportClientsRequestSchema>["updateMask"];
  /** Store nothing; return what would be, and the bad rows. */
  validateOnly?: boolean;
  /** Leave bad rows out and return them, instead of refusing all. */
  skipInvalid?: boolean;
  /** Called with the number of clients sent so far, after each message of the stream. */
  onProgress?: (sent: number) => void;
}

/** Yield the messages of the stream; the first one has the options. */
export async function* importRequests(
  clients: Iterable<MessageInitShape<typeof ClientSchema>> | AsyncIterable<MessageInitShape<typeof ClientSchema>>,
  options: ImportOptions,
): AsyncGenerator<ImportClientsRequest, void> {
  const { updateMask, validateOnly, skipInvalid, onProgress } = options;
  let request = create(ImportClientsRequestSchema, { updateMask, validateOnly, skipInvalid });
  let [sent, size] = [0, 0];
  for await (const init of clients) {
    const client: Client = create(ClientSchema, init);
    const more = toBinary(ClientSchema, client).length + OVERHEAD;
    if (request.clients.length === MAX_CLIENTS || (request.clients.length > 0 && size + more > MAX_BYTES)) {
      yield request;
      onProgress?.((sent += request.clients.length));
      [request, size] = [create(ImportClientsRequestSchema), 0];
    }
    request.clients.push(client);
    size += more;
  }
  yield request;
  onProgress?.(sent + request.clients.length);
}
