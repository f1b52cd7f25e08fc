"""Models as ONNX graphs: traced, written, checked, kept in the cache, and run without torch."""
