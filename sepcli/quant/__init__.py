"""Arithmetic of 8-bit networks: fake-quantised layers, integers, the chip."""
