"""The command line: `commands/` parse, call the library once and end; `render/` says what came of it."""

import gc

# A program starts, and a store of 10,000 models is looked at, by making a million small objects. Looking for cycles
# among them, again and again, takes a quarter of the time, and there are none but a few of typer's: what commands make
# goes when nobody refers to it. Before everything else, because importing makes the first of them.
gc.disable()
