"""Floor 3: what ostore does, one file each. Decisions are plans and reports; copying sees places as Protocols."""
