"""Floor 0: what bytes mean. Pure values and parsers; no I/O, no clock, no environment."""
