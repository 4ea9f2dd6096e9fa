"""Make recipes: find what of a blob the target has already."""
