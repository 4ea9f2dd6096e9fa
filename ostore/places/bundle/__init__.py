"""A bundle: one file, or one pass through a pipe, that carries models and each blob once (docs/bundle.md)."""
