"""Floor 4: the command line. A command is parse, one library call, render."""
