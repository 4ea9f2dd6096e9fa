"""What commands say: a file for each, and `report.py`, which chooses between JSON, one name a line and text."""
