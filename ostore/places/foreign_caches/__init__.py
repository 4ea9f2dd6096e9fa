"""Places where other programs keep models; read only, as every other place it knows nothing of its neighbours."""
