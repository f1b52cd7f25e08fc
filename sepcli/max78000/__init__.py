"""From a quantised model to what Analog Devices' tools and a microcontroller take."""
