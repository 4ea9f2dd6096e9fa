"""Take things out of a store: sweeping, the trash, a full disk."""
