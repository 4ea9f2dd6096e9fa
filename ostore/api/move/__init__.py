"""The room of `move`: everything that only moving a store needs."""
