"""Reports as pages that stand alone: one file, no script, nothing from elsewhere. Needs the extra `report`."""
