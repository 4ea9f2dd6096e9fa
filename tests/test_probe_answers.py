"""What `ostore probe` says of answers that only a double gives: wrong, broken off, endless, or of another machine."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

import ostore
from tests.gguf import talking_gguf
from tests.ollama_answers import Answer, AnsweringOllama, Exchange, answering
from tests.probing import Asked, Probed, asking, probed_store
from tests.support import Store, full, noise
from tests.support import ostore as run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return probed_store(tmp_path / "models")


@pytest.fixture
def asked(store: Store) -> Iterator[Asked]:
    with asking(store) as ask:
        yield ask


def streamed(*pieces: bytes) -> Answer:
    return lambda exchange: exchange.stream(*pieces)


def endless(exchange: Exchange) -> None:
    exchange.stream(*(b"[" * 65536 for _ in range(10_000)))


def endless_words(exchange: Exchange) -> None:
    exchange.stream(*(b'{"response":"' + b"x" * 1000 + b'"}\n' for _ in range(100_000)))


def silent(exchange: Exchange) -> None:
    exchange.handler.rfile.read(1)


def hanging(exchange: Exchange) -> None:
    exchange.handler.send_response(200)
    exchange.handler.send_header("Content-Length", "100")
    exchange.handler.end_headers()
    exchange.handler.wfile.write(b'{"response":"hel","done":false}\n')
    exchange.handler.wfile.flush()
    exchange.handler.rfile.read(1)


def patience(*answers: Answer) -> tuple[str, ...]:
    """The words for a server that stalls: nobody waits for ten minutes."""
    return ("--timeout", "2") if {silent, hanging}.intersection(answers) else ()


# What answers, the code, and a part of the one line about it.
NO_ANSWERS: dict[str, tuple[dict[str, Answer], int, str]] = {
    "not found": ({"GET /api/version": (404, b"<html>")}, 11, "not an Ollama: GET "),
    "html": ({"GET /api/version": (200, b"<html>")}, 11, "not an Ollama: GET "),
    "no version": ({"GET /api/version": (200, b"{}")}, 11, "has no version"),
    "number": ({"GET /api/version": (200, b'{"version":33}')}, 11, "has no version"),
    "list": ({"GET /api/version": (200, b"[]")}, 11, "expected a JSON object, got '[]'"),
    "forbidden": ({"GET /api/version": (403, b"")}, 11, "it answers only to names that it knows"),
    "endless": ({"GET /api/version": endless}, 13, "an answer of more than 16777216 bytes"),
    "stalled": ({"GET /api/tags": silent}, 11, "GET http://127.0.0.1:"),
    "server error": ({"GET /api/tags": (500, b'{"error":"disk on fire"}')}, 11, "/api/tags: 500: disk on fire"),
    "error in 200": ({"GET /api/tags": (200, b'{"error":"disk on fire"}')}, 11, "/api/tags: disk on fire"),
    "no models": ({"GET /api/tags": (200, b"{}")}, 11, "expected a list of objects as 'models'"),
    "odd models": ({"GET /api/tags": (200, b'{"models":[1]}')}, 11, "expected a list of objects as 'models'"),
    "nameless": ({"GET /api/tags": (200, b'{"models":[{"name":""}]}')}, 11, "a model without 'name'"),
    "odd digest": ({"GET /api/tags": (200, b'{"models":[{"name":"a","digest":"../x"}]}')}, 11, "the digest of a model"),
    "cut off": ({"GET /api/tags": (200, b'{"models":[')}, 11, "not JSON"),
    "deep": ({"GET /api/tags": (200, b"[" * 100_000)}, 13, "nested too deeply"),
    "blobs refused": ({"HEAD *": (500, b"")}, 11, "500 Internal Server Error"),
}


@pytest.mark.parametrize("case", NO_ANSWERS)
def test_a_server_that_does_not_answer_as_ollama_is_told_in_one_line(asked: Asked, case: str) -> None:
    answers, code, says = NO_ANSWERS[case]
    said = asked(*patience(*answers.values()), "--progress", "none", answers=answers)
    assert (said.code, said.text) == (code, "")
    (line,) = said.warnings.splitlines()
    assert line.startswith(f"ostore: error[{'remote' if code == 11 else 'limit'}]: ")
    assert says in line


# What comes in place of words, and a part of the line about the model.
NO_WORDS: dict[str, tuple[str, Answer, str]] = {
    "error midway": (
        "POST /api/generate",
        streamed(b'{"response":"hel","done":false}\n', b'{"error":"the runner has died"}\n'),
        "/api/generate: the runner has died",
    ),
    "error after the end": (
        "POST /api/generate",
        streamed(b'{"response":"","done":true}\n{"error":"too late"}\n'),
        "/api/generate: too late",
    ),
    "never done": (
        "POST /api/generate",
        streamed(b'{"response":"hello","done":false}\n'),
        "the answer ended before it was done",
    ),
    "nearly done": ("POST /api/generate", streamed(b'{"done":"true"}\n'), "the answer ended before it was done"),
    "nothing": ("POST /api/generate", streamed(), "the answer ended before it was done"),
    "no JSON": ("POST /api/generate", streamed(b"hello\n"), "not JSON"),
    "no memory": ("POST /api/generate", (500, b'{"error":"needs 64 GiB"}'), "/api/generate: 500: needs 64 GiB"),
    "bad gateway": ("POST /api/generate", (502, b"<html>"), "502 Bad Gateway"),
    "stalls": ("POST /api/generate", hanging, "/api/generate: "),
    "does not stop": ("POST /api/generate", endless_words, "an answer of more than 1048576 bytes"),
    "one line": ("POST /api/generate", endless, "a line of more than 262144 bytes"),
    "no end": (
        "POST /v1/chat/completions",
        streamed(b'data: {"choices":[{"delta":{"content":"hello"},"finish_reason":"stop"}]}\n\n'),
        "the answer ended before it was done",
    ),
    "no reason": (
        "POST /v1/chat/completions",
        streamed(b'data: {"choices":[{"delta":{"content":"hello"}}]}\n\ndata: [DONE]\n\n'),
        "the answer ended before it was done",
    ),
    "error in a chunk": (
        "POST /v1/chat/completions",
        streamed(b'data: {"error":{"message":"the runner has died","code":null}}\n\ndata: [DONE]\n\n'),
        "/v1/chat/completions: the runner has died",
    ),
}


@pytest.mark.parametrize("case", NO_WORDS)
def test_an_answer_of_status_200_is_no_word_before_it_is_done(asked: Asked, case: str) -> None:
    what, answer, says = NO_WORDS[case]
    said = asked(*patience(answer), "--generate", answers={what: answer})
    assert (said.code, "2 of 2 models served as stored, 0 of 2 answered" in said.text) == (11, True)
    lines = [line for line in said.text.splitlines() if says in line]
    assert [line.partition(": ")[0] for line in lines] == ["talk:latest", "tiny:q4"]


def test_an_embedding_model_is_asked_for_an_embedding(asked: Asked) -> None:
    said = asked("--generate", "--model", "talk", capabilities=("embedding",))
    assert (said.code, "3 dimensions" in said.text) == (0, True)
    for answer in (b'{"embeddings":[]}', b'{"embeddings":[["x"]]}', b'{"embeddings":[[1e999]]}'):
        bad = asked(
            "--generate", "--model", "talk", capabilities=("embedding",), answers={"POST /api/embed": (200, answer)}
        )
        assert bad.code == 11


def test_a_model_that_makes_pictures_is_not_asked(asked: Asked) -> None:
    said = asked("--generate", "--model", "talk", capabilities=("image",))
    assert (said.code, "answered" in said.text) == (0, False)


def test_a_model_that_thinks_first_has_begun_to_answer(asked: Asked) -> None:
    thinking = streamed(b'{"response":"","thinking":"Hm","done":false}\n{"response":"","done":true}\n')
    said = asked("--generate", "--model", "talk", answers={"POST /api/generate": thinking})
    assert (said.code, "'Hm'" in said.text) == (0, True)


def test_a_model_that_was_in_memory_stays_there(store: Store) -> None:
    made = AnsweringOllama(store.root, loaded=("talk:latest",))
    with answering(made) as url:
        assert Probed(url, store.root, "--generate").code == 0
    unloaded = [body["model"] for what, body in made.asked if what == "POST /api/generate" and "keep_alive" in body]
    assert unloaded == ["tiny:q4"]


def test_an_older_version_in_memory_is_told(asked: Asked) -> None:
    old = json.dumps({"models": [{"name": "talk:latest", "digest": "0" * 64}]}).encode()
    assert "talk:latest: an older version of it is in memory" in asked(answers={"GET /api/ps": (200, old)}).warnings


def test_a_model_that_the_server_cannot_open_is_told(asked: Asked) -> None:
    said = asked("--generate", answers={"POST /api/show": (500, b'{"error":"bad magic"}')})
    assert (said.code, said.text.count("/api/show: 500: bad magic")) == (11, 2)
    quiet = asked("-q", answers={"POST /api/show": (500, b'{"error":"bad magic"}')})
    assert (quiet.code, quiet.text) == (11, "talk:latest\ntiny:q4\n")


def test_models_that_run_elsewhere_are_not_asked_about(store: Store) -> None:
    """A server would ask its cloud, and nobody has typed that address."""
    store.model("far:cloud", noise(500))
    stub = store.config(remote_host="https://ollama.com:443", remote_model="gpt-oss:20b")
    store.write_manifest(full("stub:latest"), json.dumps({"schemaVersion": 2, "config": stub, "layers": None}).encode())
    made = AnsweringOllama(store.root)
    with answering(made) as url:
        assert Probed(url, store.root, "--generate").code == 0
    assert {body["model"] for _, body in made.asked if body} == {"talk:latest", "tiny:q4"}


def test_what_the_api_of_openai_lacks_is_told(asked: Asked) -> None:
    assert "the API of OpenAI does not list talk:latest and 1 more" in asked(
        answers={"GET /v1/models": (200, b'{"data":null}')}
    )
    assert "no models over the API of OpenAI: " in asked(answers={"GET /v1/models": (404, b"")}).warnings


def test_a_server_that_does_not_tell_what_is_in_memory_is_asked_all_the_same(asked: Asked) -> None:
    assert asked(version="0.1.30", answers={"GET /api/ps": (404, b"404 page not found")}).code == 0
    assert asked(answers={"GET /api/ps": (500, b"")}).code == 11


def test_an_old_server_is_told_what_it_does(asked: Asked) -> None:
    said = asked(version="0.20.7")
    assert (said.code, "Ollama 0.20.7: at its start it deletes blobs" in said.warnings) == (0, True)
    assert "0.33.0-rc2" not in asked(version="0.33.0-rc2").warnings


def test_a_model_for_a_newer_server_is_told(asked: Asked, store: Store) -> None:
    store.add(full("new:latest"), store.layer("x/y", b"z"), config=store.config(requires="0.40.0"))
    assert "new:latest: made for Ollama 0.40.0 and newer; the server has 0.33.0" in asked().warnings


def test_a_folder_of_another_machine_or_container_proves_nothing(asked: Asked) -> None:
    said = asked(folder="/of/a/container/blobs")
    assert (said.code, "cannot be told from here" in said.text, said.warnings.count("warning")) == (0, True, 0)
    windows = asked(folder="C:\\Users\\a\\.ollama\\models\\blobs")
    assert windows.code == 0


def test_a_container_that_names_the_same_folder_is_not_taken_for_it(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "inside")
    other.model("talk:latest", talking_gguf(), template=b"{{ .Prompt }}", license=b"MIT")
    with answering(AnsweringOllama(other.root, folder=f"{store.root}/blobs")) as url:
        said = Probed(url, store.root)
    assert (said.code, "is it in a container?" in said.warnings) == (10, True)


def test_a_server_that_opens_nothing_leaves_its_store_unknown(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty/blobs").mkdir(parents=True)
    with answering(AnsweringOllama(tmp_path / "empty")) as url:
        said = Probed(url, store.root)
    assert (said.code, "0 of 2 models served as stored" in said.text) == (10, True)


@pytest.mark.parametrize("words", [(), ("--generate",), ("-q",), ("--json",)], ids=" ".join)
def test_a_store_without_models_proves_nothing(store: Store, tmp_path: Path, words: tuple[str, ...]) -> None:
    empty = tmp_path / "empty"
    (empty / "blobs").mkdir(parents=True)
    with answering(AnsweringOllama(store.root)) as url:
        said = Probed(url, empty, *words)
    assert (said.code, said.text) == (3, "")
    assert f"no models in {empty} to compare" in said.warnings
    assert "ostore where shows which store is used; --models DIR names another" in said.warnings
    assert said.warnings.count("\n") == 1


@pytest.mark.parametrize("words", [(), ("--model", "talk")], ids=" ".join)
def test_a_store_of_which_nothing_can_be_read_proves_nothing_either(store: Store, words: tuple[str, ...]) -> None:
    for name in ("talk:latest", "tiny:q4"):
        store.manifest_path(full(name)).write_bytes(b"[]")
    with answering(AnsweringOllama(store.root)) as url:
        said = Probed(url, store.root, *words)
    assert (said.code, said.text) == (3, "")
    assert f"no models in {store.root} that can be read, to compare (ostore doctor --models" in said.warnings


def test_a_model_for_an_address_is_told_with_what_was_typed(store: Store) -> None:
    said = Probed("tiny:q4", store.root, "--generate", "--model", "talk")
    assert (said.code, said.text) == (2, "")
    again = f"ostore probe --model tiny:q4 --model talk --generate --models {store.root}"
    assert f"tiny:q4: a model; expected the address of a server ({again})" in said.warnings


@pytest.mark.parametrize(("url", "variable", "told"), [("ftp://x", "", "URL"), ("", "ftp://x", "OLLAMA_HOST")])
def test_a_wrong_address_is_named_as_it_was_given(store: Store, url: str, variable: str, told: str) -> None:
    said = Probed(url, store.root, environment={"OLLAMA_HOST": variable})
    assert (said.code, said.warnings) == (2, f"ostore: error[usage]: {told}: expected http:// or https://\n")


EVIL = "\x1b]0;evil\x07\x1b[2J\r\u202e\x9b\nostore: error[io]: not ours"


@pytest.mark.parametrize("words", [(), ("--generate",), ("-q",), ("--json", "--generate")], ids=" ".join)
def test_no_text_of_a_server_acts_on_a_terminal_or_fakes_a_line(
    asked: Asked, store: Store, words: tuple[str, ...]
) -> None:
    def document(**members: object) -> Answer:
        return (200, json.dumps(members).encode())

    tags = [{"name": f"evil{EVIL}", "digest": "0" * 64}, *AnsweringOllama(store.root).tags()]
    said = asked(
        *words,
        version=f"0.1.0{EVIL}",
        answers={
            "GET /api/tags": document(models=tags),
            "GET /api/ps": document(models=[{"name": f"evil{EVIL}", "digest": "1" * 64}]),
            "POST /api/show": document(
                modelfile=f"FROM /x{EVIL.splitlines()[0]}/sha256-{'0' * 64}", capabilities=["completion", EVIL]
            ),
            "POST /api/generate": document(error=EVIL),
            "POST /v1/chat/completions": streamed(
                b"data: " + json.dumps({"choices": [{"delta": {"content": EVIL}, "finish_reason": "stop"}]}).encode(),
                b"\n\ndata: [DONE]\n\n",
            ),
        },
    )
    lines = (said.text + said.warnings).splitlines()
    assert [line for line in lines if not line.isprintable() or line.startswith("ostore: error")] == []


def test_where_nobody_listens_there_is_a_way_out(store: Store) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        said = Probed(f"127.0.0.1:{port}", store.root, "--progress", "none")
        assert (said.code, said.text) == (11, "")
        assert f"GET http://127.0.0.1:{port}/api/version: connection refused (" in said.warnings
        assert "ollama serve" in said.warnings or "ostore probe http" in said.warnings
        by_variable = Probed("", store.root, environment={"OLLAMA_HOST": f"0.0.0.0:{port}"})
        assert f"GET http://127.0.0.1:{port}/api/version: connection refused" in by_variable.warnings


def test_what_speaks_no_http_is_told_in_one_line(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            with suppress(OSError), closing(listener.accept()[0]) as peer:
                peer.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        said = Probed(f"127.0.0.1:{listener.getsockname()[1]}", store.root, "--progress", "none")
        thread.join()
    assert (said.code, len(said.warnings.splitlines())) == (11, 1)


def test_a_model_in_place_of_an_address_is_told_how_to_be_named(store: Store) -> None:
    said = Probed("talk", store.root)
    assert (said.code, "ostore probe --model talk" in said.warnings) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("ftp://x",),
        ("a:b:c",),
        ("[::1]x",),
        ("--timeout", "0"),
        ("--timeout", "-1"),
        ("--timeout", "nan"),
        ("--model", "a/b/c/d"),
    ],
)
def test_what_cannot_be_asked_is_refused(store: Store, words: tuple[str, ...]) -> None:
    done = run("probe", *words, "--models", store.root)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_a_model_that_the_store_lacks_is_not_found(store: Store) -> None:
    with answering(AnsweringOllama(store.root)) as url:
        assert Probed(url, store.root, "--model", "nobody").code == 3
    assert run("probe", url, "--models", store.root / "nowhere").returncode == 3


def test_the_library_gives_the_report(store: Store) -> None:
    with answering(AnsweringOllama(store.root)) as url:
        report = ostore.probe(url, names=["t*"], generate=True, models=store.root)
    assert [(model.name, model.words[0].tokens) for model in report.models] == [("talk:latest", 2), ("tiny:q4", 2)]
    assert (report.models[0].words[0].load_seconds, report.models[0].words[0].tokens_per_second) == (1.0, 4.0)
