"""Run the command line as `python -m ostore`."""

import sys

# Python puts the current folder first. A json.py beside a bundle must not become part of this program.
sys.path = [entry for entry in sys.path if entry != sys.path[0]] if not sys.flags.safe_path else sys.path

from ostore.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
