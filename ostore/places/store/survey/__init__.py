"""Looking at a store: nothing here locks, creates or changes anything."""
