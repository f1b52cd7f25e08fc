"""Work over many items: shares of it, processes of one machine, and workers of many."""

LOCAL = "local"  # the address that means workers on this machine, for this run
