"""Direct messages: inbound, commands, texts, outbound."""
