"""Reports as web pages. A page is one file without scripts and loads nothing. Needs the extra `report`."""
