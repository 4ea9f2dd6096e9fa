"""Facts about this machine: the stores in use, the service unit, processes, users and routes."""
