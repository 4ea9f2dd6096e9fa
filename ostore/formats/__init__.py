"""Floor 0 says what bytes mean. It has pure values and parsers: no I/O, no clock, no environment."""
