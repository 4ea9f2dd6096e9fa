"""Folders where other programs keep models. They are only read."""
