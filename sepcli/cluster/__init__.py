"""Work over many items: shares of it, processes of one machine, and workers of many."""
