"""A file for each command: it parses, calls the library once, lets `render` say what came of it, and ends."""
