"""Everything that only `sync` needs."""
