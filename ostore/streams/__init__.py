"""Floor 1 moves bytes. It knows descriptors and directories, but no stores and no bundles."""
