"""A registry of models: Ollama's own, or any that speaks the OCI distribution protocol."""
