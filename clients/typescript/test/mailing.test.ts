import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { serviceConfig } from "../src/channel.js";
import { importRequests } from "../src/import.js";
import { clientOf, localTime, mailingOf, messageId, moment, phone, window } from "../src/index.js";
import * as v1 from "../src/v1.js";
import { Repeats } from "../src/watch.js";

async function cut(count: number, characters: number): Promise<number[]> {
  const clients = Array.from({ length: count }, () => ({ tag: "x".repeat(characters) }));
  const found: number[] = [];
  for await (const request of importRequests(clients, {})) found.push(request.clients.length);
  return found;
}

test("imports are cut by count and bytes", async () => {
  assert.deepEqual(await cut(0, 0), [0]);
  assert.deepEqual(await cut(1001, 10), [500, 500, 1]);
  assert.deepEqual(await cut(20, 300_000), [3, 3, 3, 3, 3, 3, 2]);
  assert.deepEqual(await cut(2, 3_000_000), [1, 1]);
});

test("options stand in the first message only", async () => {
  const found: boolean[] = [];
  const clients = Array.from({ length: 501 }, () => ({}));
  for await (const request of importRequests(clients, { skipInvalid: true })) found.push(request.skipInvalid);
  assert.deepEqual(found, [true, false]);
});

test("a resumed stream repeats nothing", () => {
  const repeats = new Repeats();
  const count = (resumeToken: string, ...ids: bigint[]) => {
    const changes = ids.map((id) => ({ messageId: id }));
    return repeats.fresh(create(v1.WatchMessagesResponseSchema, { resumeToken, changes })).length;
  };
  assert.deepEqual([count("a", 1n, 2n), count("a", 3n)], [2, 1]);
  repeats.resume();
  assert.deepEqual([count("a", 1n, 2n), count("b", 3n, 4n), count("c", 5n)], [0, 1, 1]);
});

test("only reads and creations are repeated", () => {
  const config = serviceConfig([v1.ClientService, v1.MailingService, v1.AdminService, v1.DeliveryService]);
  for (const name of ["GetMailing", "WatchMessages", "CreateMailing"]) assert.ok(config.includes(`"${name}"`), name);
  for (const name of ["SendTestMessage", "ProbeEndpoint", "DeleteClient", "ImportClients"]) assert.ok(!config.includes(`"${name}"`), name);
});

test("values refuse what is none", () => {
  const refused = [() => window("9:00", "24:00"), () => phone("079161234567"), () => moment("2030-01-31 09:00"), () => localTime("tomorrow")];
  for (const value of refused) assert.throws(value, /such as/);
});

test("ids of messages are taken apart", () => {
  const id = messageId(3_000_000n, 2n ** 32n - 1n);
  assert.deepEqual([mailingOf(id), clientOf(id)], [3_000_000n, 2n ** 32n - 1n]);
});
