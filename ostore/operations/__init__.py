"""Floor 3: what ostore does, a file each: decisions as plans and reports, and the movement, seen through Protocols."""
