"""The Nostr core: pure codecs, one relay connection, a pool, and egress for untrusted URLs."""
