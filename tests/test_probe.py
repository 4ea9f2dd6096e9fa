"""
`ostore probe` says what a running Ollama serves.

A double is asked and, where there is one, a real Ollama. tests/test_probe_answers.py has what only a double does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest

from tests.gguf import embedding_gguf
from tests.probing import OTHER_CONFIG, SERVERS, Probed, cannot_run_models, probed_store, real
from tests.support import Store, full
from tests.support import ostore as run
from tests.test_ollama import OLLAMA, tiny_gguf


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return probed_store(tmp_path / "models")


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """A server of a store; gives its URL."""
    with ExitStack() as servers:
        yield lambda models: servers.enter_context(request.param(models, tmp_path / f"home-{models.name}"))


def document(url: str, models: Path, *words: str) -> dict[str, Any]:
    done = run("probe", url, "--json", "--models", models, *words)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["schema"] == "ostore.probe/1"
    return found


class TestAServer:
    """What every Ollama does, also a real one."""

    def test_that_serves_the_store_is_proven_to(self, serve: Callable[[Path], str], store: Store) -> None:
        url = serve(store.root)
        said = Probed(url, store.root)
        assert (said.code, "2 of 2 models served as stored" in said) == (0, True)
        assert "(the server uses it too)" in said.text
        told = document(url, store.root)
        assert (told["verdict"], told["is_same_store"], told["server_store"]) == ("served", True, str(store.root))
        assert [(model["name"], model["served"], model["words"]) for model in told["models"]] == [
            ("talk:latest", "same", []),
            ("tiny:q4", "same", []),
        ]
        assert told["models"][0]["digest"] == told["models"][0]["served_digest"]
        assert Probed(url, store.root, "-q").text == ""

    def test_that_serves_another_store_is_told_with_a_way_out(
        self, serve: Callable[[Path], str], store: Store, tmp_path: Path
    ) -> None:
        shutil.copytree(store.root, tmp_path / "other")
        other = Store(tmp_path / "other")
        other.manifest_path(full("talk:latest")).unlink()
        other.model("more:latest", tiny_gguf(3))
        url = serve(other.root)
        said = Probed(url, store.root)
        assert said.code == 10
        line = f"the server uses another store, {other.root}; here it is {store.root} (--models): ostore import"
        assert [one for one in said.warnings.splitlines() if line in one]
        assert "talk:latest: missing: it does not list it" in said.text
        assert "only the server has 1 model: more:latest" in said.text
        assert Probed(url, store.root, "-q").text == "talk:latest\n"
        told = document(url, store.root)
        assert (told["is_same_store"], told["extra"]) == (False, ["more:latest"])
        # The remedy is what it says.
        assert run(*told["remedy_arguments"][0][1:]).returncode == 0
        after = Probed(url, store.root)
        assert (after.code, "the server uses another store" in after.warnings) == (0, True)

    def test_that_serves_another_model_of_that_name_is_told(
        self, serve: Callable[[Path], str], store: Store, tmp_path: Path
    ) -> None:
        other = Store(tmp_path / "other")
        other.model("talk:latest", tiny_gguf(3))
        other.model("tiny:q4", tiny_gguf(1), system=b"Say no!")
        said = Probed(serve(other.root), store.root)
        assert (said.code, "0 of 2 models" in said.text) == (10, True)
        assert "talk:latest: different: it opens other weights" in said.text
        assert "tiny:q4: different: the same weights, with another config or other texts; it lacks 2 of 3" in said.text

    def test_that_has_written_a_manifest_anew_serves_the_same_layers(
        self, serve: Callable[[Path], str], store: Store, tmp_path: Path
    ) -> None:
        shutil.copytree(store.root, tmp_path / "other")
        path = Store(tmp_path / "other").manifest_path(full("tiny:q4"))
        path.write_bytes(path.read_bytes().rstrip())
        told = document(serve(tmp_path / "other"), store.root)
        assert (told["verdict"], [model["served"] for model in told["models"]]) == ("served", ["same", "rewritten"])

    def test_that_lacks_a_blob_lists_the_model_all_the_same(self, serve: Callable[[Path], str], store: Store) -> None:
        url = serve(store.root)
        store.blob_path(b"MIT").unlink()
        said = Probed(url, store.root, "--model", "talk")
        assert (said.code, "talk:latest: incomplete: it lacks 1 of 4 blobs" in said.text) == (10, True)
        assert Probed(url, store.root, "--model", "tiny:q4").code == 0

    def test_hides_a_model_without_its_config_and_we_say_why(self, serve: Callable[[Path], str], store: Store) -> None:
        store.blob_path(OTHER_CONFIG).unlink()
        url = serve(store.root)
        said = Probed(url, store.root)
        assert (said.code, "1 of 2 models" in said.text) == (10, True)
        assert "tiny:q4: missing: its config is missing, so no server lists it" in said.text

    def test_lets_a_model_say_a_word_over_both_apis(
        self, request: pytest.FixtureRequest, serve: Callable[[Path], str], store: Store
    ) -> None:
        if cannot_run_models(request.node.callspec.params["serve"]):
            pytest.skip("no llama-server beside this Ollama")
        url = serve(store.root)
        told = document(url, store.root, "--generate", "--model", "talk")
        words = told["models"][0]["words"]
        assert (told["verdict"], [word["api"] for word in words]) == ("served", ["ollama", "openai"])
        assert ["hello" in word["text"] for word in words] == [True, True]
        assert words[0]["tokens_per_second"] > 0
        assert words[0]["tokens"] >= 2
        assert [word["seconds"] >= 0 for word in words] == [True, True]
        # What was not in memory before is not left there.
        assert document(url, store.root, "--model", "talk")["models"][0]["loaded"] is False
        said = Probed(url, store.root, "--generate", "--model", "talk")
        assert (said.code, "1 of 1 model served as stored, 1 of 1 answered" in said) == (0, True)

    @pytest.mark.skipif(OLLAMA is None, reason="a double has no vectors of its own")
    def test_lets_an_embedding_model_embed_a_text_over_both_apis(self, store: Store, tmp_path: Path) -> None:
        if cannot_run_models(real):
            pytest.skip("no llama-server beside this Ollama")
        store.model("vectors:latest", embedding_gguf())
        with real(store.root, tmp_path / "home") as url:
            words = document(url, store.root, "--generate", "--model", "vectors")["models"][0]["words"]
        assert [(word["api"], word["dimensions"], word["problem"]) for word in words] == [
            ("ollama", 32, ""),
            ("openai", 32, ""),
        ]

    def test_is_what_other_clients_see(self, serve: Callable[[Path], str], store: Store) -> None:
        """The clients that people use: `ollama` and `openai`."""
        url = serve(store.root)
        told = document(url, store.root)
        (talk,) = document(url, store.root, "--generate", "--model", "talk")["models"]
        with closing(ollama.Client(url)._client) as raw:
            tags = raw.get("/api/tags").json()["models"]
        listed = {model["name"]: f"sha256:{model['digest']}" for model in tags}
        assert listed == {model["name"]: model["served_digest"] for model in told["models"]}
        with closing(openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)) as client:
            assert {model.id for model in client.models.list()} == set(listed)
            says = [says_natively(url, "talk"), says_as_openai(client, "talk")]
        assert says == [not word["problem"] for word in talk["words"]]

    @pytest.mark.skipif(OLLAMA is None, reason="a double is no process of its own")
    def test_that_opens_nothing_is_known_by_its_process(self, store: Store, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        (empty / "blobs").mkdir(parents=True)
        with real(empty, tmp_path / "home") as url:
            said = Probed(url, store.root)
            assert (said.code, f"the server uses another store, {empty}; " in said.warnings) == (10, True)
            # Nobody listens on port 1, and there is an Ollama elsewhere.
            assert "an Ollama listens elsewhere: ostore probe http://" in Probed("127.0.0.1:1", store.root)

    @pytest.mark.skipif(OLLAMA is None, reason="a double loads nothing")
    def test_that_cannot_load_a_model_is_told(self, store: Store, tmp_path: Path) -> None:
        with real(store.root, tmp_path / "home") as url:
            said = Probed(url, store.root, "--generate", "--model", "tiny:q4")
            assert (said.code, "1 of 1 model served as stored, 0 of 1 answered" in said) == (11, True)
            # 0.9.6 itself ends when its runner does not understand the weights; later ones answer 500.
            assert [line for line in said.text.splitlines() if line.startswith("tiny:q4: POST ")]


def says_natively(url: str, name: str) -> bool:
    client = ollama.Client(url)
    with closing(client._client):
        try:
            pieces = list(client.generate(name, "Say", stream=True, options={"num_predict": 2}))
        except ollama.ResponseError:
            return False
    return bool(pieces[-1].done)


def says_as_openai(client: openai.OpenAI, name: str) -> bool:
    question: Any = {"role": "user", "content": "Say"}
    try:
        pieces = list(client.chat.completions.create(model=name, messages=[question], stream=True, max_tokens=2))
    except openai.APIError:
        return False
    return any(choice.finish_reason for piece in pieces for choice in piece.choices)
