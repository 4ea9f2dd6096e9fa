"""A bundle: one file, or one pass through a pipe, that carries models with every blob once (docs/bundle.md)."""
