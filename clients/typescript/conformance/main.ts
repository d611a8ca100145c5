/** Runs the scenario that every client library passes, and prints what it saw. tests/clients/README.md describes both. */

import { readFileSync } from "node:fs";
import { toJson, fromJson, type DescMethod, type DescService, type JsonObject, type JsonValue, type Registry } from "@bufbuild/protobuf";
import { create, createRegistry, type Message } from "@bufbuild/protobuf";
import { timestampMs, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { Code, MailingClient, MailingError, type ConnectOptions } from "../src/index.js";
import * as values from "../src/index.js";
import * as v1 from "../src/v1.js";

interface Meanwhile {
  after: number;
  token?: string;
  control?: JsonObject[];
}

interface Step {
  name: string;
  using?: string;
  expect: JsonObject;
  save?: Record<string, string>;
  connect?: string;
  address: string;
  token?: string;
  callback?: boolean;
  ca?: string;
  cert?: string;
  key?: string;
  timeout?: number;
  call?: string;
  pages?: string;
  request: JsonObject;
  items: string;
  each?: number[];
  import?: ImportStep;
  watch_mailing?: string;
  watch_messages?: { mailing_id: string; from_start?: boolean; resume_token?: string; until: number; within: number };
  meanwhile?: Meanwhile;
  control?: JsonObject[];
  value?: string;
  of: string[];
}

interface ImportStep {
  rows?: number;
  client: JsonObject;
  clients?: JsonObject[];
  breaks_after?: number;
  fill?: { attributes: number; characters: number };
}

interface Connection {
  client: MailingClient;
  token: string;
}

class SourceError extends Error {}

const SERVICES: [DescService, keyof MailingClient][] = [
  [v1.ClientService, "clients"],
  [v1.MailingService, "mailings"],
  [v1.MessageService, "messages"],
  [v1.DeliveryService, "delivery"],
  [v1.ScheduleService, "schedules"],
  [v1.SegmentService, "segments"],
  [v1.AdminService, "admin"],
];
const registry: Registry = createRegistry(...SERVICES.map(([service]) => service.file));
const plan = JSON.parse(readFileSync(process.argv[2]!, "utf8")) as { variables: Record<string, string>; steps: Step[] };
const connections = new Map<string, Connection>();

async function main(): Promise<void> {
  for (const raw of plan.steps) {
    const step = replaced(raw, plan.variables);
    const result = await attempt(() => perform(step));
    const saved = Object.fromEntries(Object.entries(step.save ?? {}).map(([name, path]) => [name, String(at(result, path))]));
    Object.assign(plan.variables, saved);
    const seen = Object.fromEntries(Object.keys(step.expect).map((path) => [path, at(result, path)]));
    process.stdout.write(`${JSON.stringify({ step: step.name, seen, saved, error: at(result, "error") })}\n`);
  }
  for (const { client } of connections.values()) client.close();
}

function replaced<T>(value: T, variables: Record<string, string>): T {
  return JSON.parse(JSON.stringify(value).replace(/\$\{(\w+)\}/g, (all, name: string) => variables[name] ?? all)) as T;
}

/** Return a result, or the failure of the call in the words of the scenario. */
async function attempt(act: () => Promise<JsonValue>): Promise<JsonValue> {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof MailingError)) throw error;
    const { reason, sentence, fields, metadata, transport } = error;
    const failure = { code: Code[error.code]!, reason, message: sentence, hint: sentence.split(" (")[0]!, metadata, transport };
    return { error: { ...failure, fields: fields.map((one) => ({ ...one })) } };
  }
}

async function perform(step: Step): Promise<JsonValue> {
  const on = connections.get(step.using ?? "main");
  if (step.connect) return connect(step);
  if (step.control) return control(step.control);
  if (step.value) return value(step.value, step.of);
  if (!on) throw new Error(`${step.name}: there is no such connection`);
  if (step.each) {
    const results = step.each.map((one) => () => call(on, step.call!, replaced(step.request, { each: String(one) })));
    const found: JsonValue[] = [];
    for (const one of results) found.push(await attempt(one));
    return { results: found };
  }
  if (step.call) return call(on, step.call, step.request);
  if (step.pages) return pages(on, step);
  if (step.import) return importClients(on, step.import);
  if (step.watch_mailing) return watchMailing(on, BigInt(step.watch_mailing));
  if (step.watch_messages) return watchMessages(on, step);
  if (step.token) {
    on.token = step.token;
    return {};
  }
  throw new Error(`${step.name}: a step of no known kind`);
}

function connect({ connect: name, address, token, callback, ca, cert, key, timeout }: Step): JsonValue {
  const options: ConnectOptions = {};
  const connection = { token: token ?? "" } as Connection;
  if (token) options.token = callback ? () => connection.token : token;
  if (ca || cert) options.tls = { ca, cert, key } as { ca: string };
  if (timeout) options.timeoutMs = timeout * 1000;
  return valid(() => {
    connection.client = new MailingClient(address, options);
    connections.set(name!, connection);
    return {};
  });
}

/** Send commands to the test and return its last answer. */
async function control(commands: JsonObject[]): Promise<JsonValue> {
  let answer: JsonValue = {};
  for (const command of commands) {
    const response = await fetch(plan.variables.control!, { method: "POST", body: JSON.stringify(command) });
    if (!response.ok) throw new Error(`${JSON.stringify(command)}: ${response.status}`);
    answer = (await response.json()) as JsonValue;
  }
  return answer;
}

async function call({ client }: Connection, name: string, request: JsonObject): Promise<JsonValue> {
  const [serviceName, methodName] = name.split(".");
  const [service, field] = SERVICES.find(([one]) => one.name === serviceName)!;
  const method: DescMethod = service.methods.find((one) => one.name === methodName)!;
  const calls = client[field] as unknown as Record<string, (request: Message) => unknown>;
  const answer = calls[method.localName]!(fromJson(method.input, request, { registry }));
  const document = (message: Message) => toJson(method.output, message, { registry });
  if (method.methodKind === "unary") return document((await answer) as Message);
  const responses: JsonValue[] = [];
  for await (const response of answer as AsyncIterable<Message>) responses.push(document(response));
  return { responses };
}

async function pages(on: Connection, { pages: name, request, items: field }: Step): Promise<JsonValue> {
  let [items, count, token] = [0, 0, ""];
  do {
    const page = await call(on, name!, { ...request, page_token: token });
    items += Number(at(page, `${field}.#`) ?? 0);
    token = String(at(page, "nextPageToken") ?? "");
    count++;
  } while (token !== "");
  return { items, pages: count };
}

async function importClients({ client }: Connection, step: ImportStep): Promise<JsonValue> {
  let progress = 0;
  try {
    const response = await client.importClients(rows(step), { onProgress: (sent) => (progress = sent) });
    return { ...(toJson(v1.ImportClientsResponseSchema, response) as JsonObject), progress };
  } catch (error) {
    if (error instanceof SourceError) return { error: { source: true } };
    throw error;
  }
}

function* rows({ rows: count = 0, client, clients = [], breaks_after, fill }: ImportStep): Generator<v1.Client> {
  for (const one of clients) yield fromJson(v1.ClientSchema, one);
  for (let row = 0; row < count; row++) {
    if (breaks_after === row) throw new SourceError();
    const found = fromJson(v1.ClientSchema, replaced(client, { row: String(row).padStart(7, "0") }));
    for (let a = 0; a < (fill?.attributes ?? 0); a++) found.attributes[`a${a}`] = "x".repeat(fill!.characters);
    yield found;
  }
}

async function watchMailing({ client }: Connection, id: bigint): Promise<JsonValue> {
  let last = create(v1.MailingSchema);
  for await (const state of client.watchMailing(id)) last = state;
  return { last: toJson(v1.MailingSchema, last) };
}

async function watchMessages(on: Connection, { watch_messages: asked, meanwhile }: Step): Promise<JsonValue> {
  const { mailing_id, from_start: fromStart, resume_token: resumeToken, until, within } = asked!;
  const signal = AbortSignal.timeout(within * 1000);
  const query = { mailingId: BigInt(mailing_id), fromStart: fromStart ?? false, resumeToken: resumeToken ?? "" };
  const watch = on.client.watchMessages(query, { signal });
  const [seen, latest, statuses] = [new Set<string>(), new Map<bigint, number>(), {} as Record<string, number>];
  let [repeated, disordered, silence, before] = [0, 0, "short", Date.now()];
  try {
    for await (const { messageId, status, time } of watch) {
      if (Date.now() - before > 45_000) silence = "long";
      before = Date.now();
      const key = `${messageId} ${status} ${time!.seconds} ${time!.nanos}`;
      if (seen.has(key)) {
        repeated++;
        continue;
      }
      seen.add(key);
      if (timestampMs(time!) < (latest.get(messageId) ?? 0)) disordered++;
      latest.set(messageId, timestampMs(time!));
      statuses[v1.Message_Status[status]!] = (statuses[v1.Message_Status[status]!] ?? 0) + 1;
      if (seen.size === meanwhile?.after) {
        if (meanwhile.token) on.token = meanwhile.token;
        await control(meanwhile.control ?? []);
      }
      if (seen.size === until) break;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return { changes: seen.size, repeated, disordered, statuses, token: watch.resumeToken, silence };
}

/** Call a helper for values. */
function value(name: string, of: string[]): JsonValue {
  const ids = () => of.map(BigInt) as [bigint, bigint];
  const helpers: Record<string, () => JsonValue> = {
    message_id: () => String(values.messageId(...ids())),
    mailing_of: () => String(values.mailingOf(ids()[0])),
    client_of: () => String(values.clientOf(ids()[0])),
    window: () => toJson(v1.ReceiveWindowSchema, values.window(of[0]!, of[1]!)),
    phone: () => values.phone(of[0]!),
    moment: () => toJson(TimestampSchema, values.moment(of[0]!)),
    local_time: () => toJson(v1.CivilDateTimeSchema, values.localTime(of[0]!)),
  };
  return valid(() => ({ value: helpers[name]!() }));
}

/** Return a result, or what the library refuses without a call. */
function valid(act: () => JsonValue): JsonValue {
  try {
    return act();
  } catch (error) {
    return { error: { invalid: error instanceof TypeError, message: String(error) } };
  }
}

/** Return what stands at a path of a JSON value, or null. */
function at(document: JsonValue | undefined, path: string): JsonValue {
  if (path === "" || document === null || document === undefined) return document ?? null;
  const [name, ...rest] = path.split(".") as [string, ...string[]];
  if (typeof document !== "object") return null;
  if (name === "#") return Object.keys(document).length;
  if (name === "*" && Array.isArray(document)) return document.map((one) => at(one, rest.join(".")));
  return at((document as JsonObject)[name], rest.join("."));
}

await main();
