"""An Ollama models folder: read as it is found, changed only by the protocols here (docs/store.md)."""
