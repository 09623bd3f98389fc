"""How sats move: units, bolt11, NIP-47. No tenants, no SQL, no sockets."""
