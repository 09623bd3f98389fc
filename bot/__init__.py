"""The shell: sockets, processes, texts. Everything here may import `billing` and `wallet`."""
