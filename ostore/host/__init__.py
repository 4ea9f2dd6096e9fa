"""What this machine says: stores that are in use here, the service unit, processes, users, disks and routes."""
