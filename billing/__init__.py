"""Who owes what: every decision about money and all SQL. Imports `wallet`, never `bot`."""
