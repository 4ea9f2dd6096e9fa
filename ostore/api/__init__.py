"""
The library: one function a command, opening places and calling operations. `ostore` re-exports it.

Every function that takes `models` means the store's folder; None finds it as `where` does. Names are Ollama's short
names or quoted globs. Sizes are bytes. Refusals are `OstoreError`; a failing disk is `OSError`.
"""
