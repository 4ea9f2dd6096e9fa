"""Everything that only `move` needs."""
