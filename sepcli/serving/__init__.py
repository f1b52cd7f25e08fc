"""Separation over HTTP and WebSocket: jobs in folders, live streams, and a page."""
