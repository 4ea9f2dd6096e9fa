"""
Registries that lie, flood, stall and send elsewhere (threats E94 to E110): `pull` ends as documented, and the store is
as it was.
"""

from __future__ import annotations

import gzip
import itertools
import json
import time
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ostore.cli import exit_codes
from ostore.cli.main import run
from tests.false_registry import Asked, FalseRegistry, answer, blob, false_registry
from tests.support import Store, noise, sha256, tree
from tests.torture.judge import output_problems

WEIGHTS = noise(5_000_001, 94)
CONFIG = b'{"model_format":"gguf"}'
DIGEST = f"sha256:{sha256(WEIGHTS)}"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": f"sha256:{sha256(CONFIG)}",
            "size": len(CONFIG),
        },
        "layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": DIGEST, "size": len(WEIGHTS)}],
    },
    separators=(",", ":"),
).encode()
Answer = Callable[[Asked], Iterable[bytes]]


def honest(asked: Asked) -> Iterable[bytes]:
    if "/manifests/" in asked.path:
        return answer(MANIFEST)
    return blob(WEIGHTS if DIGEST in asked.path else CONFIG, asked)


def with_manifest(made: Answer) -> Answer:
    return lambda asked: made(asked) if "/manifests/" in asked.path else honest(asked)


def with_weights(made: Answer) -> Answer:
    return lambda asked: made(asked) if DIGEST in asked.path else honest(asked)


def endless(piece: bytes) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    yield from itertools.repeat(piece, 100_000)


def redirect(where: str) -> Answer:
    return lambda asked: answer(b"", "307 Temporary Redirect", Location=where)


def trailers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    yield from itertools.repeat(b"X-Padding: xxxxxxxx\r\n", 1_000_000)


def other_range(asked: Asked) -> Iterable[bytes]:
    first, end = asked.span or (0, len(WEIGHTS))
    return answer(WEIGHTS[first:end], "206 Partial Content", Content_Range=f"bytes {first + 1}-{end}/{len(WEIGHTS)}")


def long_head() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    yield from itertools.repeat(b"X-Padding: " + b"x" * 1000 + b"\r\n", 10_000)


def many_heads() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    yield from (f"X-{number}: x\r\n".encode() for number in range(10_000))


def one_line_head() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX-Long: "
    yield from itertools.repeat(b"x" * 10_000, 1000)


def interim() -> Iterator[bytes]:
    yield from itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n", 1_000_000)


def resets_at(share: float) -> Answer:
    def made(asked: Asked) -> Iterator[bytes]:
        pieces = [*blob(WEIGHTS, asked)]
        yield pieces[0]
        yield pieces[1][: int(len(pieces[1]) * share)]
        raise ConnectionError

    return made


@dataclass(frozen=True)
class Case:
    """What a registry does, the class of the error, and a part of its line."""

    name: str
    answers: Answer
    error: str
    says: str


def json_with(**fields: object) -> bytes:
    return json.dumps({**json.loads(MANIFEST), **fields}).encode()


CASES = [
    Case("E94 endless manifest", with_manifest(lambda _: endless(b" " * 65536)), "limit", "more than 4194304 bytes"),
    Case(
        "E94 manifest of 10^18 bytes",
        with_manifest(lambda _: answer(b"{", length=10**18)),
        "limit",
        "more than 4194304 bytes",
    ),
    Case(
        "E95 gzip that nobody asked for",
        with_manifest(lambda _: answer(gzip.compress(MANIFEST), Content_Encoding="gzip")),
        "format",
        "no manifest of a model",
    ),
    Case(
        "E96 digest of another manifest",
        with_manifest(lambda _: answer(MANIFEST, Docker_Content_Digest=f"sha256:{'0' * 64}")),
        "integrity",
        f"expected the manifest sha256:{'0' * 64}",
    ),
    Case("E97 one byte short", with_weights(lambda asked: blob(WEIGHTS[:-1], asked)), "integrity", "has 5000000"),
    Case("E97 one byte long", with_weights(lambda asked: blob(WEIGHTS + b"x", asked)), "integrity", "has 5000002"),
    Case(
        "E97 other bytes", with_weights(lambda asked: blob(WEIGHTS[:-1] + b"x", asked)), "integrity", "another digest"
    ),
    Case("E97 zeros", with_weights(lambda asked: blob(bytes(len(WEIGHTS)), asked)), "integrity", "another digest"),
    Case("E98 another range", with_weights(other_range), "remote", "asked for bytes 0-2097151, got 'bytes 1-2097152/"),
    Case(
        "E98 no range is told",
        with_weights(lambda asked: answer(WEIGHTS[: 2 << 20], "206 Partial Content")),
        "remote",
        "asked for bytes 0-2097151, got ''",
    ),
    Case(
        "E99 redirects in a circle",
        lambda asked: redirect(asked.path)(asked) if "/blobs/" in asked.path else honest(asked),
        "remote",
        "more than 5 redirects",
    ),
    Case(
        "E99 redirects for ever",
        lambda asked: (
            honest(asked) if "/manifests/" in asked.path else answer(b"", "302 Found", Location=f"{asked.path}x")
        ),
        "remote",
        "more than 5 redirects",
    ),
    Case("E99 to a file", with_weights(redirect("file:///etc/passwd")), "remote", "which is no address"),
    Case("E99 to gopher", with_weights(redirect("gopher://127.0.0.1/x")), "remote", "which is no address"),
    Case("E99 to a user", with_weights(redirect("http://me:secret@127.0.0.1/x")), "remote", "which is no address"),
    Case("E99 to plain http elsewhere", with_weights(redirect("http://registry.example/x")), "remote", "not encrypted"),
    Case("E99 to half an address", with_weights(redirect("http://[")), "remote", "redirected to what is no address"),
    Case(
        "E99 to a port that is none",
        with_weights(redirect("https://registry.example:99999/")),
        "remote",
        "redirected to what is no address",
    ),
    Case("E103 trailers without end", with_manifest(lambda _: trailers()), "limit", "the head of an answer"),
    Case("E103 head of 10 MB", with_manifest(lambda _: long_head()), "limit", "the head of an answer"),
    Case("E103 line of 10 MB", with_manifest(lambda _: one_line_head()), "limit", "the head of an answer"),
    Case("E103 10,000 headers", with_manifest(lambda _: many_heads()), "limit", "the head of an answer"),
    Case("E103 interim answers without end", with_manifest(lambda _: interim()), "limit", "the head of an answer"),
    Case("E104 resets at 99 %", with_weights(resets_at(0.99)), "remote", "blobs/sha256"),
    Case("E106 forbidden", lambda _: answer(b'{"errors":[{"code":"DENIED"}]}', "403 Forbidden"), "remote", "DENIED"),
    Case("E106 not found", lambda _: answer(b"", "404 Not Found"), "not-found", "no model library/model:latest"),
    Case(
        "E106 too many, for ever",
        lambda _: answer(b"", "429 Too Many Requests", Retry_After="1000000000"),
        "remote",
        "429 Too Many Requests",
    ),
    Case("E106 500", lambda _: answer(b"", "500 Internal Server Error"), "remote", "500 Internal Server Error"),
    Case("E106 502", with_weights(lambda _: answer(b"", "502 Bad Gateway")), "remote", "502 Bad Gateway"),
    Case(
        "E107 escapes in an error",
        lambda _: answer(b"\x1b]52;c;aGk=\x07<html>" + b"x" * 1_000_000, "403 Forbidden"),
        "remote",
        "\\x1b]52;c;aGk=\\x07<html>xxx",
    ),
    Case(
        "E110 larger than promised",
        with_weights(lambda _: answer(WEIGHTS[:1000], length=10_000_000_000)),
        "integrity",
        "has 10000000000",
    ),
    Case("no HTTP", lambda _: iter([b"SSH-2.0-OpenSSH_9.2\r\n"]), "remote", "manifests/latest: "),
    Case(
        "E43 list of manifests",
        with_manifest(
            lambda _: answer(json.dumps({"schemaVersion": 2, "manifests": [{"digest": DIGEST, "size": 5}]}).encode())
        ),
        "format",
        "no manifest",
    ),
    Case(
        "E54 layers and manifests",
        with_manifest(lambda _: answer(json_with(manifests=[{"digest": DIGEST, "size": 5}]))),
        "unsafe",
        "no manifest",
    ),
    Case(
        "E44 path in a digest",
        with_manifest(lambda _: answer(MANIFEST.replace(DIGEST.encode(), b"sha256:../../../etc/passwd"))),
        "unsafe",
        "no manifest",
    ),
    Case(
        "E52 two sizes of a blob",
        with_manifest(
            lambda _: answer(
                json_with(layers=[*json.loads(MANIFEST)["layers"], {**json.loads(MANIFEST)["layers"][0], "size": 7}])
            )
        ),
        "unsafe",
        "two sizes",
    ),
]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been slept between tries. Nobody has the minutes."""
    seconds: list[float] = []
    monkeypatch.setattr(
        "ostore.streams.http.time", types.SimpleNamespace(sleep=seconds.append, monotonic=time.monotonic)
    )
    return seconds


def pulled(registry: FalseRegistry, store: Path, capfd: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    code = run(["pull", f"{registry.host}/library/model", "--models", str(store), "--progress", "none", *options])
    out, err = capfd.readouterr()
    assert output_problems(code, out, err) == []
    return code, err


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_registry_ends_as_documented(
    case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str], slept: list[float]
) -> None:
    store = Store(tmp_path / "models")
    store.model("other:latest", b"of others")
    before = tree(tmp_path)
    with false_registry(case.answers) as registry:
        code, err = pulled(registry, store.root, capfd)
    assert code == exit_codes.CODES[case.error], err
    assert case.says in err
    assert sum(slept) <= 300
    assert tree(tmp_path) == before


def lists(pages: Answer) -> Answer:
    return lambda asked: pages(asked) if "/_catalog" in asked.path else answer(b'{"tags":["latest"]}')


def many_tags(asked: Asked) -> Iterable[bytes]:
    if "/_catalog" in asked.path:
        return answer(json.dumps({"repositories": [f"library/m{number}" for number in range(100)]}).encode())
    if "/tags/" in asked.path:
        return answer(json.dumps({"tags": [f"t{number}" for number in range(7_000)]}).encode())
    return answer(b"", "403 Forbidden")


def large_manifests(asked: Asked) -> Iterable[bytes]:
    if "/manifests/" in asked.path:
        return answer(json_with(annotations={"x": "x" * 4_000_000}))
    tags = json.dumps({"tags": [f"t{number}" for number in range(100)]}).encode()
    return answer(b'{"repositories":["library/m"]}' if "/_catalog" in asked.path else tags)


LISTS = [
    Case(
        "E108 a million names",
        lists(
            lambda _: answer(json.dumps({"repositories": [f"library/m{number}" for number in range(200_000)]}).encode())
        ),
        "limit",
        "more than 20000 repositories",
    ),
    Case(
        "E108 many tags of each of many",
        many_tags,
        "limit",
        "more than 20000 tags",
    ),
    Case("E108 large manifests of many", large_manifests, "limit", "more than 33554432 bytes"),
    Case(
        "E108 leads to itself",
        lists(lambda asked: answer(b'{"repositories":[]}', Link=f'<{asked.path}>; rel="next"')),
        "limit",
        "does not end",
    ),
    Case(
        "E108 goes on elsewhere",
        lists(lambda _: answer(b'{"repositories":[]}', Link='<http://127.0.0.1:1/x>; rel="next"')),
        "remote",
        "goes on at another server",
    ),
    Case(
        "E108 for ever",
        lists(lambda asked: answer(b'{"repositories":["library/m"]}', Link=f'<{asked.path}1>; rel="next"')),
        "limit",
        "",
    ),
    Case(
        "E108 goes on at no address",
        lists(lambda _: answer(b'{"repositories":[]}', Link='<http://[>; rel="next"')),
        "remote",
        "goes on at what is no address",
    ),
    Case(
        "E108 goes on after other links",
        lists(lambda asked: answer(b'{"repositories":[]}', Link=f'</a>; rel="first", <{asked.path}>; x=y; rel=next')),
        "limit",
        "does not end",
    ),
    Case("E108 no list", lists(lambda _: answer(b'{"repositories":7}')), "format", "its list of repositories is none"),
    Case("E108 no JSON", lists(lambda _: answer(b"\xff")), "format", "its list of repositories"),
    Case("E108 no list at all", lists(lambda _: answer(b"", "404 Not Found")), "not-found", "no model"),
]


@pytest.mark.parametrize("case", LISTS, ids=lambda case: case.name)
def test_a_list_of_models_that_lies_ends_as_documented(
    case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with false_registry(case.answers) as registry:
        code = run(["pull", f"{registry.host}/library/*", "--models", str(tmp_path / "models"), "--progress", "none"])
    out, err = capfd.readouterr()
    assert output_problems(code, out, err) == []
    assert code == exit_codes.CODES[case.error], err
    assert case.says in err
    assert list(tmp_path.iterdir()) == []
    assert len(registry.asked) < 1000


def test_an_honest_registry_is_believed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with false_registry(honest) as registry:
        assert pulled(registry, tmp_path / "models", capfd)[0] == 0
    assert Store(tmp_path / "models").blob_path(WEIGHTS).read_bytes() == WEIGHTS


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_server_without_ranges_is_read_in_one_stream(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], is_chunked: bool
) -> None:
    def answers(asked: Asked) -> Iterable[bytes]:
        whole = replace(asked, headers={})
        if DIGEST not in asked.path or not is_chunked:
            return honest(whole)
        chunks = (WEIGHTS[start : start + 70_000] for start in range(0, len(WEIGHTS), 70_000))
        pieces = (f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
        return itertools.chain([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], pieces, [b"0\r\n\r\n"])

    with false_registry(answers) as registry:
        assert pulled(registry, tmp_path / "models", capfd)[0] == 0
    assert Store(tmp_path / "models").blob_path(WEIGHTS).read_bytes() == WEIGHTS


def test_without_ranges_a_broken_stream_goes_on_where_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], slept: list[float]
) -> None:
    shares = iter([0.3, 0.0, 0.8, 1.0, 1.0])

    def answers(asked: Asked) -> Iterable[bytes]:
        whole = replace(asked, headers={})
        return resets_at(next(shares))(whole) if DIGEST in asked.path else honest(whole)

    with false_registry(answers) as registry:
        assert pulled(registry, tmp_path / "models", capfd)[0] == 0
    assert Store(tmp_path / "models").blob_path(WEIGHTS).read_bytes() == WEIGHTS


def test_what_passes_is_tried_again(tmp_path: Path, capfd: pytest.CaptureFixture[str], slept: list[float]) -> None:
    troubles = iter([answer(b"", "503 Service Unavailable", Retry_After="7"), answer(b"", "429 Too Many Requests")])

    def answers(asked: Asked) -> Iterable[bytes]:
        return next(troubles, honest(asked))

    with false_registry(answers) as registry:
        assert pulled(registry, tmp_path / "models", capfd)[0] == 0
    assert slept[0] == 7.0
    assert len(slept) == 2


def test_an_interim_answer_is_not_the_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    interim_first = [b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"]
    with false_registry(lambda asked: [*interim_first, *honest(asked)]) as registry:
        assert pulled(registry, tmp_path / "models", capfd)[0] == 0
    assert Store(tmp_path / "models").blob_path(WEIGHTS).read_bytes() == WEIGHTS


def test_a_length_of_other_digits_is_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def all_of_it() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n"
        yield WEIGHTS
        raise ConnectionError

    with false_registry(with_weights(lambda _: all_of_it())) as registry:
        assert pulled(registry, tmp_path / "models", capfd)[0] == 0
    assert Store(tmp_path / "models").blob_path(WEIGHTS).read_bytes() == WEIGHTS


def test_a_small_answer_that_is_cut_is_asked_for_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], slept: list[float]
) -> None:
    def cut() -> Iterator[bytes]:
        yield from answer(MANIFEST[:-40], length=len(MANIFEST))
        raise ConnectionError

    first = iter([cut()])
    with false_registry(with_manifest(lambda _: next(first, answer(MANIFEST)))) as registry:
        assert pulled(registry, tmp_path / "models", capfd)[0] == 0
    assert len(slept) == 1


def test_a_range_in_chunks_that_is_cut_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], slept: list[float]
) -> None:
    """Proxies send what they read in chunks."""
    turns = itertools.count()

    def in_one_chunk(first: int, end: int) -> Iterator[bytes]:
        yield f"HTTP/1.1 206 X\r\nContent-Range: bytes {first}-{end - 1}/{len(WEIGHTS)}\r\n".encode()
        yield f"Transfer-Encoding: chunked\r\n\r\n{end - first:x}\r\n".encode()
        if next(turns) == 0:
            yield WEIGHTS[first : first + 1000]
            raise ConnectionError
        yield WEIGHTS[first:end] + b"\r\n0\r\n\r\n"

    def answers(asked: Asked) -> Iterable[bytes]:
        return in_one_chunk(*asked.span) if DIGEST in asked.path and asked.span else honest(asked)

    with false_registry(answers) as registry:
        assert pulled(registry, tmp_path / "models", capfd)[0] == 0
    assert len(slept) == 1


def test_the_bytes_before_a_reset_are_not_asked_for_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], slept: list[float]
) -> None:
    """The first command gives up in the last range; the second asks for that alone."""
    last = (len(WEIGHTS) // (2 << 20)) * (2 << 20)
    broken = with_weights(
        lambda asked: resets_at(0.0)(asked) if asked.span and asked.span[0] >= last else honest(asked)
    )
    with false_registry(broken) as registry:
        assert pulled(registry, tmp_path / "models", capfd)[0] == 11
        port = registry.port
    with false_registry(honest, port=port) as again:
        assert pulled(again, tmp_path / "models", capfd)[0] == 0
    spans = [asked.span for asked in again.asked if DIGEST in asked.path]
    assert spans == [(last, len(WEIGHTS))]


def test_a_redirect_to_another_server_gets_no_login(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And it is asked directly from then on."""
    with false_registry(honest) as files:
        where = f"http://{files.host}/v2/library/model/blobs/{DIGEST}?signature=secret"
        with false_registry(with_weights(redirect(where))) as registry:
            assert pulled(registry, tmp_path / "models", capfd)[0] == 0
    assert all("authorization" not in asked.headers for asked in files.asked)
    assert len([path for path in registry.paths() if DIGEST in path]) < len(files.asked)


def test_what_another_server_says_is_not_repeated(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It may be what the address was signed with."""
    with (
        false_registry(lambda asked: answer(f"<Error>{asked.path}</Error>".encode(), "403 Forbidden")) as files,
        false_registry(with_weights(redirect(f"http://{files.host}/x?signature=secret"))) as registry,
    ):
        code, err = pulled(registry, tmp_path / "models", capfd)
    assert (code, f"GET http://{files.host}/x: 403 Forbidden\n" in err) == (11, True), err


def test_what_an_address_signs_is_asked_for_anew_when_its_time_is_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    turns = itertools.count()

    def expiring(asked: Asked) -> Iterable[bytes]:
        return answer(b"expired", "403 Forbidden") if next(turns) % 3 == 2 else blob(WEIGHTS, asked)

    with (
        false_registry(expiring) as files,
        false_registry(with_weights(redirect(f"http://{files.host}/signed"))) as registry,
    ):
        code, err = pulled(registry, tmp_path / "models", capfd, "--jobs", "1")
    assert code == 0, err
    assert Store(tmp_path / "models").blob_path(WEIGHTS).read_bytes() == WEIGHTS


@pytest.mark.parametrize("where", ["http://169.254.169.254/latest", "http://[::1]:1/x", "http://0.0.0.0/x"])
def test_a_registry_elsewhere_sends_nobody_to_this_machine(where: str) -> None:
    """No registry elsewhere can be had on loopback, so the rule itself is asked."""
    from ostore.formats.errors import RemoteError
    from ostore.streams.http import Http, NetworkTerms, Request

    with pytest.raises(RemoteError, match="an address of this machine or of its link"):
        Http(NetworkTerms(plain_http=True))._redirected(Request("GET", "http://registry.example/v2/"), where)
    with pytest.raises(RemoteError, match="which is not encrypted"):
        Http(NetworkTerms())._redirected(Request("GET", "https://registry.example/v2/"), "http://other.example/")
