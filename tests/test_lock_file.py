"""A lock file is for people: they may write in it, and an error says in which line it is."""

from __future__ import annotations

import pytest

from ostore.formats import lock_file
from ostore.formats.digest import Digest
from ostore.formats.errors import (
    FormatError,
    InvalidDigestError,
    InvalidNameError,
    LimitError,
    OstoreError,
    UnsafeError,
)
from ostore.formats.lock_file import MAX_LOCK_BYTES, LockChange, LockedModel, LockFile
from ostore.formats.name import ModelName

A, B, C = (Digest.of(letter) for letter in (b"a", b"b", b"c"))
GEMMA, LLAMA, QWEN = (ModelName.parse(word) for word in ("gemma:2b", "llama3", "qwen"))
LOCK = LockFile.of([(LLAMA, B), (GEMMA, A)])
LINES = f"{A}  registry.ollama.ai/library/gemma:2b\n{B}  registry.ollama.ai/library/llama3:latest\n"
REMARKED = (
    "# The models of laboratory 3.\n\n"
    f"{A}  registry.ollama.ai/library/gemma:2b\n"
    "# Übergangsweise.\n"
    f"{B}  registry.ollama.ai/library/llama3:latest\n"
    "# Ende.\n"
)


def test_a_lock_is_one_sorted_line_a_model() -> None:
    assert LOCK.write() == LINES.encode()
    assert LockFile.parse(LOCK.write()) == LOCK


def test_an_empty_lock_has_no_models() -> None:
    assert LockFile.parse(b"") == LockFile(()) == LockFile.of([])
    assert LockFile(()).write() == b""


def test_what_people_wrote_stays_where_it_is() -> None:
    lock = LockFile.parse(REMARKED.encode())
    assert lock.models == LOCK.models
    assert lock.write() == REMARKED.encode()


@pytest.mark.parametrize(
    "text",
    [
        "".join(reversed(LINES.splitlines(keepends=True))),
        LINES.replace("\n", "\r\n"),
        LINES.replace("  ", "\t"),
        LINES.replace("  ", " ").rstrip("\n"),
        "".join(f"  {line} \n" for line in LINES.splitlines()),
    ],
    ids=["order", "line ends of Windows", "tab", "one blank and no last line end", "indented"],
)
def test_spelling_that_means_the_same_is_taken(text: str) -> None:
    assert LockFile.parse(text.encode()).models == LOCK.models


def test_a_lock_keeps_the_line_ends_it_has() -> None:
    lock = LockFile.parse(REMARKED.replace("\n", "\r\n").encode())
    assert lock == LockFile.parse(REMARKED.encode())
    added = lock.updated([LockedModel(QWEN, C)], is_whole=False).write().decode()
    assert added.count("\n") == added.count("\r\n") == REMARKED.count("\n") + 1


REFUSED: dict[str, tuple[str, type[OstoreError]]] = {
    "no name": (f"{A}\n", FormatError),
    "three words": (f"{A}  registry.ollama.ai/library/gemma:2b x\n", FormatError),
    "a name first": (f"registry.ollama.ai/library/gemma:2b {A}\n", InvalidNameError),
    "a short name": (f"{A}  gemma:2b\n", InvalidNameError),
    "a digest in upper case": (f"sha256:{A.hex.upper()}  registry.ollama.ai/library/gemma:2b\n", InvalidDigestError),
    "a short digest": ("sha256:abc  registry.ollama.ai/library/gemma:2b\n", InvalidDigestError),
    "a name that climbs": (f"{A}  registry.ollama.ai/../../etc:passwd\n", InvalidNameError),
    "a name of a terminal": (f"{A}  registry.ollama.ai/library/\x1b[2J:x\n", InvalidNameError),
    "a name twice": (f"{B}  registry.ollama.ai/library/gemma:2b\n", UnsafeError),
    "twins": (f"{A}  registry.ollama.ai/library/Gemma:2b\n", UnsafeError),
}


@pytest.mark.parametrize(("line", "error"), REFUSED.values(), ids=REFUSED)
def test_an_error_names_the_line(line: str, error: type[OstoreError]) -> None:
    with pytest.raises(error, match="lock: line 4: ") as caught:
        LockFile.parse(f"# first\n{LINES}{line}".encode())
    assert type(caught.value) is error


def test_a_name_twice_names_both_lines() -> None:
    with pytest.raises(UnsafeError, match=r"line 3: .*'registry.ollama.ai/library/gemma:2b': the same name is in line"):
        LockFile.parse(f"{LINES}{LINES}".encode())
    with pytest.raises(UnsafeError, match="differs only by case, is in line 1"):
        LockFile.parse(f"{LINES}{LINES.replace('gemma', 'GEMMA')}".encode())


def test_bytes_that_are_no_text_name_their_line() -> None:
    with pytest.raises(FormatError, match="lock: line 3: not UTF-8"):
        LockFile.parse(f"{LINES}# ".encode() + b"\xff\n")


def test_a_file_that_is_too_large_is_not_read() -> None:
    with pytest.raises(LimitError, match="at most"):
        LockFile.parse(b"#" * (MAX_LOCK_BYTES + 1))


def test_more_models_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_file, "MAX_MEMBERS", 1)
    with pytest.raises(LimitError, match="lock: line 2: expected at most 1 models"):
        LockFile.parse(LINES.encode())


def test_models_are_found_by_folded_name() -> None:
    assert LOCK.digests["registry.ollama.ai/library/gemma:2b"] == LockedModel(GEMMA, A)
    assert LOCK.restricted([ModelName.parse("GEMMA:2b")]).models == (LockedModel(GEMMA, A),)


def test_an_update_of_some_models_leaves_the_others() -> None:
    lock = LockFile.parse(REMARKED.encode()).updated([LockedModel(GEMMA, C), LockedModel(QWEN, C)], is_whole=False)
    new = (
        REMARKED.replace(str(A), str(C)).replace("# Ende.\n", "")
        + f"{C}  registry.ollama.ai/library/qwen:latest\n# Ende.\n"
    )
    assert lock.write() == new.encode()


def test_an_update_of_all_models_drops_the_others_and_their_remarks() -> None:
    lock = LockFile.parse(REMARKED.encode()).updated([LockedModel(GEMMA, A)], is_whole=True)
    assert lock.write() == REMARKED.split("# Über", maxsplit=1)[0].encode() + b"# Ende.\n"


def test_changes_are_those_of_each_name() -> None:
    new = LockFile.of([(LLAMA, C), (QWEN, A)])
    assert LOCK.changes_to(new) == (
        LockChange(GEMMA, A, None),
        LockChange(LLAMA, B, C),
        LockChange(QWEN, None, A),
    )
    assert LOCK.changes_to(LOCK) == ()
