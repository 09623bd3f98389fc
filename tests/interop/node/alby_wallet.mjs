// A wallet service of @getalby/sdk. What it knows about money it asks its parent, a line at a time:
// stdin: first {relayUrl, walletSecret, clientPubkey, methods}, then {id, result | error};
// stdout: {ready: true}, then {id, method, params}.
import { createInterface } from "node:readline";
import WebSocket from "ws";

globalThis.WebSocket = WebSocket;
const { NWCWalletService, NWCWalletServiceKeyPair } = await import("@getalby/sdk/nwc");

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (object) => process.stdout.write(JSON.stringify(object) + "\n");
const waiting = new Map();
let number = 0;

const ask = (method) => (params) =>
  new Promise((resolve) => {
    number += 1;
    waiting.set(number, resolve);
    say({ id: number, method, params: params ?? {} });
  });

const setup = JSON.parse((await lines.next()).value);
const service = new NWCWalletService({ relayUrls: [setup.relayUrl] });
const keys = new NWCWalletServiceKeyPair(setup.walletSecret, setup.clientPubkey);
const handler = {};
for (const method of setup.methods) {
  handler[method.replace(/_(.)/g, (_, letter) => letter.toUpperCase())] = ask(method);
}
await service.publishWalletServiceInfoEvent(setup.walletSecret, setup.methods, []);
await service.subscribe(keys, handler);
say({ ready: true });

for (;;) {
  const { value, done } = await lines.next();
  if (done) break;
  const { id, result, error } = JSON.parse(value);
  waiting.get(id)?.({ result, error });
  waiting.delete(id);
}
service.close();
process.exit(0);
