// A client of @getalby/sdk: does each {method, params} of its standard input, one a line, and
// prints {result} or {error: {code, message}}; "notification" waits for the next one.
import { createInterface } from "node:readline";
import WebSocket from "ws";

globalThis.WebSocket = WebSocket;
const { NWCClient } = await import("@getalby/sdk/nwc");

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (object) => process.stdout.write(JSON.stringify(object) + "\n");
const { uri } = JSON.parse((await lines.next()).value);
const client = new NWCClient({ nostrWalletConnectUrl: uri });

const heard = [];
let hear = null;
await client.subscribeNotifications((notification) => {
  if (hear) hear(notification);
  else heard.push(notification);
  hear = null;
});
say({ result: { encryption: (await client.getWalletServiceInfo()).encryptions } });

for (;;) {
  const { value, done } = await lines.next();
  if (done) break;
  const { method, params } = JSON.parse(value);
  try {
    const result =
      method === "notification"
        ? (heard.shift() ?? (await new Promise((resolve) => (hear = resolve))))
        : await client[method](params);
    say({ result });
  } catch (error) {
    say({ error: { code: error.code ?? "", message: String(error.message) } });
  }
}
client.close();
process.exit(0);
