"""Registries that lie, flood and refuse while something is pushed: `push` ends as documented, and sends no blob."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ostore.cli import exit_codes
from ostore.cli.main import run
from tests.false_registry import Asked, FalseRegistry, answer, false_registry
from tests.support import OSTORE, Store, noise, tree, unmeasured
from tests.torture.judge import output_problems

Answer = Callable[[Asked], Iterable[bytes]]


def nothing_there(asked: Asked) -> Iterable[bytes]:
    if asked.method in {"GET", "HEAD"}:
        return answer(b"", "404 Not Found")
    if asked.method == "POST":
        return answer(b"", "202 Accepted", Location=f"{asked.path}one?state=x")
    return answer(b"", "201 Created")


def on(method: str, made: Answer) -> Answer:
    return lambda asked: made(asked) if asked.method == method else nothing_there(asked)


def endless(_asked: Asked) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    yield from itertools.repeat(b" " * 65536, 100_000)


def long_head(_asked: Asked) -> Iterator[bytes]:
    yield b"HTTP/1.1 202 Accepted\r\n"
    yield from itertools.repeat(b"X-Padding: " + b"x" * 1000 + b"\r\n", 10_000)


def challenge(text: str) -> Answer:
    return lambda _asked: answer(b"", "401 Unauthorized", WWW_Authenticate=text)


def always(status: str, body: bytes = b"", **headers: str) -> Answer:
    return lambda _asked: answer(body, status, None, **headers)


@dataclass(frozen=True)
class Case:
    """What a registry does, the class of the error, and a part of its line."""

    name: str
    answers: Answer
    error: str
    says: str


CASES = [
    Case("E94 endless manifest", on("GET", endless), "limit", "more than 4194304 bytes"),
    Case("E100 realm elsewhere, plain", challenge('Bearer realm="http://evil.example/t"'), "remote", "not encrypted"),
    Case("E100 realm of the link", challenge('Bearer realm="https://[x"'), "remote", "which is no address"),
    Case("E100 no realm", challenge("Bearer"), "remote", "Bearer without a realm"),
    Case("E100 a long challenge", challenge("Basic, " * 3000), "limit", "WWW-Authenticate: expected at most"),
    Case("E100 no challenge", always("401 Unauthorized"), "remote", "docker login"),
    Case(
        "E102 upload elsewhere",
        on("POST", always("202 Accepted", Location="https://evil.example/x")),
        "remote",
        "sent to another host, https://evil.example/x",
    ),
    Case("E102 upload nowhere", on("POST", always("202 Accepted")), "remote", "does not say where"),
    Case("E102 to a file", on("POST", always("202 Accepted", Location="file:///x")), "remote", "to another host"),
    Case("E103 head of 10 MB", on("POST", long_head), "limit", "the head of an answer"),
    Case("E106 forbidden", on("POST", always("403 Forbidden", b"no")), "remote", "403 Forbidden: 'no' (docker login"),
    Case("E106 500", on("POST", always("500 Internal Server Error")), "remote", "500 Internal Server Error"),
    Case(
        "E106 too many, for ever",
        on("POST", always("429 Too Many Requests", Retry_After="1000000000")),
        "remote",
        "429 Too Many Requests",
    ),
    Case(
        "E107 escapes in an error",
        on("PUT", always("400 Bad Request", b"\x1b]52;c;aGk=\x07" + b"x" * 1_000_000)),
        "remote",
        "\\x1b]52;c;aGk=\\x07xxx",
    ),
    Case("redirected upload", on("PUT", always("307 Temporary Redirect", Location="/x")), "remote", "307"),
    Case("no HTTP", lambda _: iter([b"SSH-2.0-OpenSSH_9.2\r\n"]), "remote", "manifests/latest: "),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_registry_ends_as_documented(
    case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    slept: list[float] = []
    clock = types.SimpleNamespace(sleep=slept.append, monotonic=time.monotonic)
    monkeypatch.setattr("ostore.streams.http.time", clock)
    store = Store(tmp_path / "models")
    store.model("model:latest", noise(100_000, 9))
    before = tree(tmp_path)
    with false_registry(case.answers) as registry:
        words = ["push", "model", "--to", f"{registry.host}/library", "--models", str(store.root)]
        code = run([*words, "--progress", "none"])
    out, err = capfd.readouterr()
    assert output_problems(code, out, err) == []
    assert code == exit_codes.CODES[case.error], err
    assert case.says in err
    assert sum(slept) <= 300 * 8
    assert tree(tmp_path) == before
    assert [one.path for one in registry.asked if one.method == "PUT" and "/manifests/" in one.path] == []


def waits(asked: Asked) -> Iterable[bytes]:
    """Of many requests side by side, each is told to come back in five minutes."""
    return nothing_there(asked) if "/manifests/" in asked.path else always("429 Busy", Retry_After="300")(asked)


def stalls(asked: Asked) -> Iterator[bytes]:
    """It takes a blob and never answers."""
    if asked.method == "PUT":
        threading.Event().wait(60)
    yield from nothing_there(asked)


@contextlib.contextmanager
def sending(tmp_path: Path, registry: FalseRegistry, *words: str, until: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command that sends a model, and yield it when the registry has got such a request."""
    # Where a shell started the tests in the background, SIGINT is ignored, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    store = Store(tmp_path / "models")
    store.model("model:latest", noise(100_000, 9), template=b"one", license=b"two")
    command = [*OSTORE, *(word.format(host=registry.host, store=store.root) for word in words)]
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as program:
        try:
            while not any(one.method == until for one in registry.asked):
                assert program.poll() is None
                time.sleep(0.05)
            yield program
        finally:
            program.kill()


PUSH = ("push", "model", "--to", "{host}/library", "--models", "{store}")


@unmeasured
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signal to one program")
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    ("answers", "until", "words"),
    [(waits, "HEAD", PUSH), (stalls, "PUT", PUSH), (waits, "HEAD", ("sync", "{store}", "http://{host}"))],
    ids=["waits", "stalls", "sync"],
)
def test_ctrl_c_ends_a_push_whatever_its_threads_wait_for(
    answers: Answer, until: str, words: tuple[str, ...], times: int, tmp_path: Path
) -> None:
    with false_registry(answers) as registry, sending(tmp_path, registry, *words, until=until) as program:
        for _ in range(times):
            program.send_signal(signal.SIGINT)
            time.sleep(0.01)
        _, errors = program.communicate(timeout=20)
    # Once more, after the line was printed, it ends the program as it ends any other.
    assert program.returncode in ({130} if times == 1 else {130, -signal.SIGINT})
    assert errors.splitlines()[-1] == "ostore: interrupted; the same command goes on from here"
    assert ("Traceback" in errors, "Exception" in errors) == (False, False)


@unmeasured
def test_an_error_waits_for_no_other_request(tmp_path: Path) -> None:
    """The registry refuses the config, which is asked for first."""
    config = Store(tmp_path / "other").config()["digest"]

    def answers(asked: Asked) -> Iterable[bytes]:
        return always("403 Forbidden")(asked) if config in asked.path else waits(asked)

    with false_registry(answers) as registry, sending(tmp_path, registry, *PUSH, until="HEAD") as program:
        _, errors = program.communicate(timeout=20)
    assert (program.returncode, "403 Forbidden" in errors) == (11, True), errors


def test_an_honest_registry_gets_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "models")
    store.model("model:latest", noise(100_000, 9))
    with false_registry(nothing_there) as registry:
        assert run(["push", "model", "--to", f"{registry.host}/library", "--models", str(store.root), "-q"]) == 0
    assert [one.method for one in registry.asked if "/manifests/" in one.path] == ["GET", "PUT"]
    assert capfd.readouterr().err == ""
