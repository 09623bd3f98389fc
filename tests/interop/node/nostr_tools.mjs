// nostr-tools as a peer: a JSON list of {op, …} on stdin, a JSON list of results on stdout.
// A result is {ok: value} or {error: message}: what it refuses is part of what is compared.
import { readFileSync } from "node:fs";
import { matchFilter } from "nostr-tools/filter";
import * as nip04 from "nostr-tools/nip04";
import * as nip17 from "nostr-tools/nip17";
import * as nip19 from "nostr-tools/nip19";
import { makeAuthEvent } from "nostr-tools/nip42";
import * as nip44 from "nostr-tools/nip44";
import * as nip59 from "nostr-tools/nip59";
import * as nip98 from "nostr-tools/nip98";
import { finalizeEvent, getEventHash, verifyEvent } from "nostr-tools/pure";

const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const hex = (raw) => Buffer.from(raw).toString("hex");
const key = (q) => nip44.getConversationKey(bytes(q.secret), q.pubkey);
// A plain copy: verifyEvent remembers its verdict on the object itself.
const fresh = (event) => JSON.parse(JSON.stringify(event));

const operations = {
  verify: (q) => verifyEvent(fresh(q.event)),
  hash: (q) => getEventHash(q.event),
  sign: (q) => finalizeEvent(q.template, bytes(q.secret)),
  nip44_key: (q) => hex(key(q)),
  nip44_encrypt: (q) => nip44.encrypt(q.text, key(q)),
  nip44_decrypt: (q) => nip44.decrypt(q.payload, key(q)),
  nip04_encrypt: (q) => nip04.encrypt(q.secret, q.pubkey, q.text),
  nip04_decrypt: (q) => nip04.decrypt(q.secret, q.pubkey, q.payload),
  nip17_wrap: (q) =>
    nip17.wrapEvent(bytes(q.secret), { publicKey: q.pubkey }, q.text),
  nip17_unwrap: (q) => nip17.unwrapEvent(fresh(q.event), bytes(q.secret)),
  nip59_wrap: (q) => nip59.wrapEvent(q.event, bytes(q.secret), q.pubkey),
  npub: (q) => nip19.npubEncode(q.hex),
  nsec: (q) => nip19.nsecEncode(bytes(q.hex)),
  note: (q) => nip19.noteEncode(q.hex),
  nprofile: (q) => nip19.nprofileEncode({ pubkey: q.hex, relays: q.relays }),
  decode: (q) => {
    const { type, data } = nip19.decode(q.text);
    return { type, data: type === "nsec" ? hex(data) : data };
  },
  auth: (q) => finalizeEvent(makeAuthEvent(q.relay, q.challenge), bytes(q.secret)),
  match: (q) => matchFilter(q.filter, q.event),
  nip98_token: (q) =>
    nip98.getToken(q.url, q.method, (e) => finalizeEvent(e, bytes(q.secret)), true, q.payload),
  nip98_validate: async (q) =>
    nip98.validateEvent(await nip98.unpackEventFromToken(q.token), q.url, q.method, q.payload),
};

const results = [];
for (const question of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    results.push({ ok: await operations[question.op](question) });
  } catch (error) {
    results.push({ error: String(error?.message ?? error) });
  }
}
process.stdout.write(JSON.stringify(results));
