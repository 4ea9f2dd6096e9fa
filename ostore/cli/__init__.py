"""Floor 4: the command line. A command is parse, one library call, render."""

import gc

# A program starts, and a store of 10,000 models is read, by making a million small objects without a cycle: looking
# for cycles among them takes a sixth of the time. Before everything else, because importing makes most of them.
gc.set_threshold(100_000)
