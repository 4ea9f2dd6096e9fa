"""`ostore version`."""

from __future__ import annotations

from ostore.cli.options import examples, group
from ostore.cli.text import say

app = group()


@app.command(epilog=examples("ostore version"))
def version() -> None:
    """Print the version, as --version does."""
    from ostore.formats.version import VERSION

    say(f"ostore {VERSION}")
