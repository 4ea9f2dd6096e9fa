"""Take models into a store: staging, publishing."""
