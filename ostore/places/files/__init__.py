"""Files of weights in ordinary folders, of which a model can be made."""
