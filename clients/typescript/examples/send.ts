/** Imports two clients, sends them a mailing and shows its progress to the end: `send.js ADDRESS`. */

import { MailingClient, window } from "../src/index.js";
import { Mailing_AudienceMode, Mailing_State } from "../src/v1.js";

const [address = "localhost:50051"] = process.argv.slice(2);
const client = new MailingClient(address, { token: process.env.MAILING_TOKEN ?? "" });

const imported = await client.importClients([
  { phone: "70100000001", timezone: "Europe/Moscow", tag: "example", receiveWindow: window("00:00", "00:00") },
  { phone: "70100000002", timezone: "Asia/Omsk", tag: "example" },
]);
console.log("new clients:", imported.created);

const { mailing } = await client.mailings.createMailing({
  mailing: { text: "Hello {phone}", filter: { tags: ["example"] }, audienceMode: Mailing_AudienceMode.SNAPSHOT },
});
for await (const { state, progress } of client.watchMailing(mailing!.id)) {
  console.log(Mailing_State[state], progress?.delivered, "of", progress?.total);
}
client.close();
