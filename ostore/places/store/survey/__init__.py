"""Look at a store. Nothing here locks, creates or changes anything."""
