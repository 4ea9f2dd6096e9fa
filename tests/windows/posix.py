"""
What the tests need of POSIX: a pytest plugin for Windows, `-p tests.windows.posix`.

It leaves out files that are about POSIX, and skips a test that asks Python for what Windows lacks, each with a reason.
A test that fails for any other reason fails.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import shutil
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from ostore.formats.name import windows_problem
from tests.windows import rpds

TESTS = Path(__file__).parents[1]
OSTORE = TESTS.parent / "ostore"
# Files and folders that are about POSIX as a whole.
LEFT_OUT = {
    "hostile/test_environment.py": "signals, limits and terminals of POSIX",
    "test_discovery.py": "the files of systemd, /proc, and homes of POSIX",
    "test_full_disk.py": "mounts disks",
    "test_kill.py": "stops programs with SIGSTOP; tests/windows has kills of its own",
    "test_memory.py": "limits the memory of a program with setrlimit",
    "test_other_disks.py": "mounts disks",
    "test_publication.py": "strace",
    "test_read_back.py": "mounts a disk; Python has no way past the cache of Windows",
    "test_repo.py": "reads the repository, which says the same everywhere",
    "test_restore_script.py": "restore.py is for POSIX, and says so on Windows",
    "test_sharing.py": "mounts disks",
    "torture": "strace, loop devices and races; the power of it is from outside, and Wine is inside",
    "vectors/test_vectors.py": "compares with restore.py, which is for POSIX",
    "windows": "drives Wine from outside",
}
_HOSTILE = "hostile/test_hostile.py::test_a_hostile_input_ends_as_documented"
_CELL = "test_odd_stores.py::test_each_cell_is_as_documented_and_its_dry_run_agrees"
_ODD = "test_doctor.py::test_what_is_odd_is_found_and_told_how_to_mend"
# Tests that are about POSIX, in files that are not, by how their names begin.
LEFT_OUT_TESTS = {
    "hostile/test_damaged_media.py::test_a_bundle_of_64_kib_cut_at_any_byte_is_refused_as_truncated": "memfd_create",
    f"{_HOSTILE}[A35 '\\\\udcff": "a name that is not UTF-8",
    f"{_HOSTILE}[A36 replaced during": "replaces a file that is open",
    **{
        f"{_HOSTILE}[C65 {what} on this disk": "names that POSIX has and Windows refuses"
        for what in ("CON", "nul.txt", "COM1 as a tag", "LPT9 as a namespace", "AUX as a host")
    },
    f"{_HOSTILE}[C66 trailing dot on": "names that POSIX has and Windows refuses",
    f"{_HOSTILE}[C67 port on": "names that POSIX has and Windows refuses",
    f"{_HOSTILE}[G126 not UTF-8": "a name that is not UTF-8",
    f"{_HOSTILE}[G127 a blob becomes a link": "a symbolic link in a thread",
    f"{_HOSTILE}[G128 .ostore is world-writable": "modes",
    f"{_HOSTILE}[G140 umask": "modes",
    f"{_HOSTILE}[G141 move to 'mod[e]ls*'": "names that POSIX has and Windows refuses",
    f"{_HOSTILE}[H146 sync_file": "folders are flushed by another call",
    f"{_CELL}[two names that differ only by case": "two names that differ only by case",
    f"{_CELL}[two spellings of a part of names": "two names that differ only by case",
    f"{_CELL}[a link to the same model under another": "two names that differ only by case",
    f"{_CELL}[a blob named in capitals": "two names that differ only by case",
    f"{_CELL}[a blob named `sha256:": "a colon in a name",
    "test_blob_files.py::test_a_step_of_a_fix_is_not_taken_if_the_store_has_changed": "words of POSIX for an error",
    "test_blob_files.py::test_of_several_names_that_of_ollama_counts": "two names that differ only by case",
    "test_carrying.py::test_the_exit_code_is_that_of_the_worst": "two names that differ only by case",
    "test_carrying.py::test_with_a_model_goes_the_link": "two names that differ only by case",
    "test_census.py::test_a_blobs_that_is_no_folder": "Wine has an error of its own for it",
    "test_census.py::test_a_download_is_as_young": "times of change, which Windows lacks",
    "test_census.py::test_a_sparse_file": "the sizes of files on the disk",
    "test_census.py::test_every_entry_is_counted": "two names that differ only by case",
    "test_census.py::test_facts_are_those_of_the_disk": "the sizes of files on the disk",
    "test_cli.py::test_what_a_reader_looks_for_is_coloured_where_colours_are_wanted": "a terminal of POSIX",
    "test_cli.py::test_list_of_nothing_is_one_line": "a home of POSIX",
    **{
        f"test_create.py::{what}": "devices, pipes, paths and modes of POSIX"
        for what in (
            "test_a_mistake_is_one_line_and_leaves_nothing[a device",
            "test_a_mistake_is_one_line_and_leaves_nothing[a folder as Modelfile",
            "test_a_file_that_changes_while_it_is_read_is_refused[a FIFO",
            "test_a_mistake_is_one_line_and_leaves_nothing[a folder with a Modelfile",
            "test_a_file_that_others_may_write_to",
            "test_a_link_is_one_file_with_two_names",
        )
    },
    "test_dedup.py::test_a_model_that_only_another_program_has": "modes",
    "test_dedup.py::test_variables_that_move_a_cache_are_followed": "a home and variables of POSIX",
    "test_doctor.py::test_a_copy_under_another_spelling": "two names that differ only by case",
    "test_doctor.py::test_the_kind_of_a_disk_is_that_of_the_innermost_and_last_mount": "/proc/self/mountinfo",
    "test_dedup.py::test_without_a_terminal_sharing_needs_yes": "no disk of Windows shares",
    f"{_ODD}[name-": "two names that differ only by case",
    f"{_ODD}[blob-misnamed": "a colon in a name",
    f"{_ODD}[workspace-unsafe 42": "modes",
    f"{_ODD}[open-to-all": "modes",
    f"{_ODD}[odd-mode": "modes",
    "test_doctor.py::test_what_fix_mends_is_gone_afterwards_and_nothing_else_has_changed[blob-leg": "a colon",
    "test_doctor.py::test_what_is_left_lying_for_days_is_told_of": "times of creation, which Wine lacks",
    "test_documents.py::test_commands_run": "a shell of POSIX",
    "test_documents.py::test_python_examples_run": "a program beside Python",
    "test_ending.py::test_a_command_that_is_stopped_says_what_is_true": "signals of POSIX",
    "test_export.py::test_legacy_blob_names_are_read": "a colon in a name",
    "test_export_gguf.py::test_a_model_becomes_files": "modes",
    "test_export_gguf.py::test_what_is_there_needs_replace": "a path of POSIX",
    "test_fixing.py::test_a_step_that_is_due_is_taken_and_what": "a colon in a name",
    "test_fixing.py::test_one_step_that_fails": "words of POSIX for an error",
    "test_foreign_caches.py::test_a_candidate_knows_its_file": "the sizes of files on the disk",
    "test_gc.py::test_a_server_in_sight": "a program of POSIX",
    "test_gc.py::test_old_spellings_go_if_they_are_orphans_and_stay_if_they_are_needed[sha256:": "a colon in a name",
    "test_gc.py::test_the_space_is_free_when_it_ends": "the sizes of files on the disk",
    "test_gc.py::test_what_a_killed_import_left_goes": "the sizes of files on the disk",
    "test_guides.py::": "a program beside Python",
    "test_import.py::test_a_single_name_that_the_disk_cannot_hold": "names that POSIX has and Windows refuses",
    "test_inbox.py::test_a_disk_that_syncs_no_more": "/proc/self/fd",
    **{
        f"test_link.py::test_{what}": "symbolic links; on Windows links are hard, and test_link.py has these apart"
        for what in (
            "models_get_readable_names",
            "two_models_that_want_one_name",
            "refresh_follows_the_store",
            "what_is_left_alone_is_named_again",
            "links_follow_a_store_that_has_moved",
            "one_folder_has_links_to_two_stores",
            "a_removal_says_which_links_it_breaks",
            "a_move_says_which_links_it_breaks",
            "a_dialect_and_a_text",
            "weights_are_linked_although",
            "the_document_has_all_of_it",
        )
    },
    "test_link.py::test_a_folder_whose_path_is_no_text": "a name that is not UTF-8",
    "test_moving.py::test_a_blob_with_its_old_name": "a colon in a name",
    "test_moving.py::test_a_check_says_whether": "a shell of POSIX",
    "test_moving.py::test_a_request_that_makes_no_sense_is_refused[['x*y']": "names that POSIX has and Windows refuses",
    "test_moving.py::test_a_store_that_a_running_ollama_uses": "a program of POSIX",
    "test_moving.py::test_beside_a_running_ollama": "a program of POSIX",
    "test_moving.py::test_what_is_wrong_with_dest_is_said_before_anybody_is_to_be_asked[to*": "such names",
    "test_nothing_there.py::test_an_import_of_nothing_is_told": "a path that stays relative",
    "test_other_archives.py::test_a_file_that_age_has": "a path of POSIX",
    "test_other_archives.py::test_a_padded_tar_is_read_by_ostore_and_by_the_script_in_it": "restore.py is for POSIX",
    "test_path.py::test_a_path_is_absolute": "a name that is not UTF-8",
    "test_refusals.py::test_a_mistake_says_what_to_type_and_changes_nothing[import file:": "a path of POSIX",
    "test_refusals.py::test_a_setting_that_nobody_means_is_told[D:": "a path that POSIX has no use for",
    "test_repair.py::test_a_blob_named_in_the_old_way": "a colon in a name",
    "test_repair.py::test_a_file_with_a_name_elsewhere": "modes",
    "test_rm.py::test_it_frees_exactly": "the sizes of files on the disk",
    "test_rm.py::test_of_twins_that_differ_by_case": "two names that differ only by case",
    "test_rm.py::test_small_blobs_that_stay": "the sizes of files on the disk",
    "test_references.py::test_a_child_that_cannot_be_relied_upon_leaves_one_doubt": "words of POSIX for an error",
    "test_sweep.py::test_a_blob_replaced_right_before": "replaces a file that is open",
    "test_survey.py::test_a_census_of_some_blobs_knows_every_form": "two names that differ only by case",
    "test_usage_page.py::test_a_page_needs_nothing_from_elsewhere_and_lets_nothing_in[hostile]": "such names",
    "test_usage_page.py::test_a_page_is_whole_html_whose_links_lead_somewhere[hostile]": "such names",
    "test_usage_page.py::test_what_comes_from_outside_is_text": "such names",
    "test_verify.py::test_a_blob_named_as_before": "a colon in a name",
    "test_verify.py::test_a_blob_named_in_capitals": "two names that differ only by case",
}
# What the standard library has on POSIX alone. That ostore itself asks for it is a failure.
_LACKS = re.compile(
    r"module 'os' has no attribute '(geteuid|getegid|getuid|chown|lchown|mknod|openpty|setxattr|getxattr|fork)'"
    r"|module 'signal' has no attribute '(SIGHUP|SIGKILL|SIGSTOP|SIGALRM|alarm)'"
    r"|module 'socket' has no attribute '(AF_UNIX)'"
    r"|^(symbolic links|pipes with a name)$"
    r"|Unsupported (signal): "
    r"|No module named '(_?(?:curses|fcntl|grp|pty|pwd|resource|termios|tty))'"
)


_symlink = os.symlink


def symlink(target: str, link: str, *arguments: object, **more: Any) -> None:  # noqa: ANN401 - as os has it
    """Wine says that it has made a link, and makes none; Windows lets few people make one."""
    with contextlib.suppress(OSError):
        _symlink(target, link, **more)
    if not os.path.lexists(link):
        raise NotImplementedError("symbolic links")


def mkfifo(*arguments: object) -> None:
    """Tables of cases name it."""
    raise NotImplementedError("pipes with a name")


def pytest_configure() -> None:
    os.symlink = symlink  # type: ignore[assignment]
    os.mkfifo = mkfifo  # type: ignore[assignment]
    # The oracle for GGUF needs numpy, which calls what the Wine of Debian lacks; the interpreter dies of that.
    sys.modules["gguf"] = None  # type: ignore[assignment]
    # Wine 8 has no CopyFile2, and a program that calls it ends. `shutil` then copies as Python before 3.12.
    del shutil._winapi.CopyFile2  # type: ignore[attr-defined]
    try:
        importlib.import_module("rpds")
    except ImportError:
        sys.modules["rpds"] = rpds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = f"{item.path.relative_to(TESTS).as_posix()}::{item.name}"
        for reason in (reason for start, reason in LEFT_OUT_TESTS.items() if name.startswith(start)):
            item.add_marker(pytest.mark.skip(reason=f"POSIX only: {reason}"))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if not collection_path.is_relative_to(TESTS):
        return None
    return True if collection_path.relative_to(TESTS).as_posix() in LEFT_OUT else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo and report.failed and (lack := lack_of(call.excinfo)):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: POSIX only: {lack}")
    return report


def lack_of(found: pytest.ExceptionInfo[BaseException]) -> str:
    """What the test asked for and Windows lacks; nothing if ostore asked for it, or if the test failed otherwise."""
    if any(Path(str(entry.path)).is_relative_to(OSTORE) for entry in found.traceback):
        return ""
    error = found.value
    if isinstance(error, OSError):
        is_program = Path(str(found.traceback[-1].path)).name == "subprocess.py"
        return "a program" if is_program else "such a name" if _is_about_a_name(error) else ""
    known = isinstance(error, (AttributeError, ImportError, NotImplementedError, ValueError))
    lacks = _LACKS.search(str(error)) if known else None
    return next(name for name in lacks.groups() if name) if lacks else ""


def _is_about_a_name(error: OSError) -> bool:
    """Whether Windows refuses a name: with a character, or of a device."""
    name = Path(str(error.filename)).name
    is_bad = windows_problem(name) is not None or min(name, default=" ") < " "
    return is_bad and error.errno in {errno.EINVAL, errno.EBADF, errno.ENOENT}


def pytest_report_header() -> list[str]:
    return [f"left out: {name}: {why}" for name, why in LEFT_OUT.items()]
