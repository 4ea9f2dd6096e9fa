"""Taking things out of a store: sweeping, the trash, a disk that is full."""
