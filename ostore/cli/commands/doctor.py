"""`ostore doctor`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import AsJson, DryRun, Models, Quiet, Yes, examples, group

if TYPE_CHECKING:
    from ostore.api.doctor import DoctorReport

app = group()


@app.command(epilog=examples("ostore doctor", "sudo ostore doctor --fix", "ostore doctor --json"))
def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Fix what is safe to fix; shows the changes and asks first.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Find problems in and around a store, and fix the safe ones.

    It looks for broken manifests, missing blobs, wrong owners, odd names, leftover files, a full disk, a second store
    and more. It hashes nothing; `ostore verify` does.

    Exit codes: 0 no problems (warnings and notes do not count), 4 a blob is missing or has the wrong size, 9 something
    cannot be read or could not be fixed, 10 manifests, names or the layout are wrong.
    """
    from ostore.api import doctor as api
    from ostore.cli.asking import agreed
    from ostore.cli.colours import SEVERITY
    from ostore.cli.exit_codes import end_with
    from ostore.cli.progress import shown
    from ostore.cli.render import doctor as render
    from ostore.cli.render.report import say_report
    from ostore.cli.stopping import GOES_ON, if_stopped

    report = api.doctor(models=models)
    done = None
    if fix and report.fixes and not dry_run and (yes or agreed(render.plan(report), "Fix this?")):
        if_stopped(GOES_ON)
        with shown("auto", quiet=quiet, as_json=as_json) as told:
            report = api.fix(report.fixes, progress=told, models=models)
        done = partial(_summary, report)
    say_report(
        "doctor",
        report,
        lambda: render.text(report, is_fix=fix),
        as_json=as_json,
        quiet=quiet,
        lines=render.quiet_lines(report),
        marks=SEVERITY,
        done=done,
    )
    end_with(report.verdict)


def _summary(report: DoctorReport) -> str:
    count = sum(step.outcome == "fixed" for step in report.fixes)
    return f"fixed {count:,} of {len(report.fixes):,}"
