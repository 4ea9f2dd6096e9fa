"""The command line: `commands/` parses and calls the library once; `render/` words the result."""

import gc

# A listing of 10,000 models makes a million small objects, and the search for cycles among them takes a quarter of the
# time. Only typer makes a few cycles; reference counts free the rest. Imports make objects too, so this comes first.
gc.disable()
