"""Folders where other programs keep models: read only."""
