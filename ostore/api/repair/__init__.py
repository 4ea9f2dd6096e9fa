"""The room of `repair`: everything that only repairing a store needs."""
