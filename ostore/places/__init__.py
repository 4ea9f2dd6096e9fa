"""Floor 2: where models live. One package a place; places never import each other."""
