"""The server of `ostore serve`: a read-only registry."""
