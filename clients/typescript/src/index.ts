/**
 * The TypeScript client of Mailing, a service that sends campaigns through your HTTP gateway and records the outcome of every
 * message. The messages and enums of the contract are in `mailing-client/v1`.
 */

export { MailingClient } from "./client.js";
export type { CallOptions, Calls, ConnectOptions, TlsFiles } from "./channel.js";
export { Code, MailingError, type FieldViolation } from "./errors.js";
export type { ImportOptions } from "./import.js";
export { clientOf, localTime, mailingOf, messageId, moment, phone, timeOfDay, window } from "./values.js";
export { VERSION } from "./version.js";
export { MessageWatch, type MessageQuery } from "./watch.js";
