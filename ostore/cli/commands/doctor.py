"""`ostore doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import AsJson, DryRun, Models, Quiet, Yes, examples, group

app = group()


@app.command(epilog=examples("ostore doctor", "sudo ostore doctor --fix", "ostore doctor --json"))
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Fix what loses nothing; shows what, and asks.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Find what would surprise you later, and fix what is safe.

    That is: broken manifests, missing blobs, wrong owners, odd names, leftovers, a full disk, a second store, and more.
    Hashes nothing; `ostore verify` does. Ends with 0 if nothing is wrong (warnings and notes are not), 4 if a blob is
    missing or has the wrong size, 9 if blobs or manifests may not be read or something could not be fixed, 10 if
    manifests, names or the layout are wrong.
    """
    from ostore.api import doctor as api
    from ostore.cli.asking import agreed
    from ostore.cli.exit_codes import end_with
    from ostore.cli.render import doctor as render
    from ostore.cli.render.report import say_report

    report = api.doctor(models=models)
    if fix and report.fixes and not dry_run and (yes or agreed(render.plan(report), "Fix this?")):
        report = api.fix(report.fixes, models=models)
    say_report(
        "doctor",
        report,
        lambda: render.text(report, is_fix=fix),
        as_json=as_json,
        quiet=quiet,
        lines=render.quiet_lines(report),
    )
    end_with(report.verdict)
