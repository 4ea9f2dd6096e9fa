"""Floor 3: what ostore does, one page each, with places seen through Protocols declared here."""
