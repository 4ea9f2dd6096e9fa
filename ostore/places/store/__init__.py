"""An Ollama models directory: read as it is found, written only by the publish protocol (docs/store.md)."""
