"""Everything that only `repair` needs."""
