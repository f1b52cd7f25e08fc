"""Hostile input, faults and long runs: short forms are tests here, long ones `make torture`."""
