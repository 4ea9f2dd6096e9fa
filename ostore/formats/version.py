"""The version of ostore. The metadata of the package and the `creator` of every bundle read it from here."""

VERSION = "0.1.0"
