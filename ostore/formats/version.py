"""The version, in the one place from which the package's metadata and every bundle's `creator` take it."""

VERSION = "0.1.0"
