"""Floor 2: where models live. Each place is a package, and places never import each other."""
