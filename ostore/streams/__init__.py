"""Floor 1: moving bytes. Knows descriptors and directories, not stores or bundles."""
