"""Floor 4: the command line. A command is parse, one library call, render."""

import gc

# A program starts, and a store of 10,000 models is looked at, by making a million small objects. Looking for cycles
# among them, again and again, takes a quarter of the time, and there are none but a few of typer's: what commands make
# goes when nobody refers to it. Before everything else, because importing makes the first of them.
gc.disable()
