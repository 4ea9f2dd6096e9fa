"""Taking models into a store: staging, publishing."""
