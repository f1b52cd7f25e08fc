"""Pure functions of arrays: no files, no printing, no global state."""
