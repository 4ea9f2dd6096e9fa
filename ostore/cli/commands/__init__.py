"""One file per command: it parses, calls the library once, and lets `render` word the result."""
