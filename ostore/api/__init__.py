"""
The library: one file for each command, with its function and its report. `ostore` lists the public names.

A function opens places, asks an operation what to do, and does it.

`models` is always the folder of the store; None means the store that `where` finds. Names are Ollama's short names or
globs. Sizes are bytes. A refusal raises an `OstoreError`, a failing disk an `OSError`. `jobs` is the number of threads;
None means one for each processor, and less than 1 raises UsageError.
"""
