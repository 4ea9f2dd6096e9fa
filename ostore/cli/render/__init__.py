"""The output of each command as text, one file per command. `report.py` chooses text, JSON or one name per line."""
