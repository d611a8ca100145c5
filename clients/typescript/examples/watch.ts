/** Prints every message of a mailing as it ends, each once, across restarts of the service: `watch.js ADDRESS MAILING_ID`. */

import { MailingClient } from "../src/index.js";
import { Message_Status } from "../src/v1.js";

const [address = "localhost:50051", mailingId = "1"] = process.argv.slice(2);
const client = new MailingClient(address, { token: process.env.MAILING_TOKEN ?? "" });

for await (const { messageId, clientId, status } of client.watchMessages({ mailingId: BigInt(mailingId), fromStart: true })) {
  console.log(messageId, clientId, Message_Status[status]);
}
