"""
The library: a file for each command, with its function and its report. `ostore` says which name is where.

A function opens places, asks an operation what to do, and does it.

Every function that takes `models` means the store's folder; None finds it as `where` does. Names are Ollama's short
names or quoted globs. Sizes are bytes. Refusals are `OstoreError`; a failing disk is `OSError`.
"""
