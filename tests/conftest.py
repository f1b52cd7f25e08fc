"""What holds for all tests, and for every process that they start."""

import os

# One thread per process: several would wait for each other whenever the machine is busy, which
# makes the small models of the tests ten times slower. Before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"
