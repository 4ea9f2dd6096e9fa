"""Inputs from which mutations start: what Ollama and ostore write, and some that both must refuse."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import zstandard

import ostore
from ostore.formats.digest import Digest
from ostore.formats.export_state import CutBlob, ExportState
from ostore.formats.inventory import HeldBlob, HeldModel, Inventory, TensorAt, TensorMap
from ostore.formats.link_layout import Layout
from ostore.formats.link_record import LinkedFile, LinkedModel, LinkRecord, write_folders
from ostore.formats.lock_file import LockFile
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.tar_header import member_header
from ostore.formats.upload_state import UploadState
from ostore.formats.volume_set import write_sums
from ostore.formats.zstd_frame import FrameSpan, measure_frame
from ostore.places.store.survey.batches import BatchRecord
from tests.gguf import ONE_LAYER, Tensor, Value, gguf, split
from tests.hostile.forge import Bundle, compressed, dumped, frame, member, run_length_frame, sealed, tar
from tests.hostile.volumes import description, packet
from tests.support import MODEL, PARAMS, TEMPLATE, TENSOR, Store, full, noise, odd_manifest

_PARAMS = b'{"stop":["\\u003c|end|\\u003e","USER:"],"temperature":0.6,"top_k":10}\n'
_MESSAGES = b'[{"role":"user","content":"hi"},{"role":"assistant","content":"Oh,\\nmy."}]\n'


@cache
def _store() -> dict[str, bytes]:
    """Every file of a store with one model of each kind, and of a bundle of them, by its path."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "models")
        store.model("tiny:latest", b"the weights " * 40, template=b"{{ .Prompt }}", license=b"MIT", params=_PARAMS)
        store.model("hf.co/someone/Long-Name-GGUF:Q4_K_M", b"the weights " * 40, system=b"Say hi!")
        tensors = [store.layer(TENSOR, noise(70, 100 + n), name=f"model.layers.{n}.weight") for n in range(12)]
        store.add(full("mlx:latest"), *tensors, config=store.config(model_format="safetensors"))
        stub = store.config(remote_host="https://ollama.com", remote_model="x", capabilities=["completion"])
        store.add(full("far:cloud"), config=stub)
        store.write_manifest(full("odd:latest"), odd_manifest(store))
        ostore.export(["*"], Path(folder) / "b.tar.zst", models=store.root)
        ostore.export(["tiny", "mlx"], Path(folder) / "b.tar", models=store.root)
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def names() -> list[bytes]:
    texts = ("llama3", "a/b:c", "hf.co/user/repo-GGUF:Q4_K_M", "localhost:5000/library/x", "_a/_b/_c:_d", "[::1]:5/a/b")
    hosts = ("registry.ollama.ai/library/tiny:latest", "Registry.Ollama.ai/Library/T:Cloud", "a" * 254 + "/b/c:d")
    odd = (
        "",
        "..",
        "a/../b",
        "a:b:c",
        "CON",
        "x@sha256:0",
        "http://h/a/b",
        "m:",
        "n/m:",
        "a/b/c/d",
        "e\u0301\x1b[2J\u202e",
    )
    return [text.encode() for text in (*texts, *hosts, *odd)]


def patterns() -> list[bytes]:
    words = (b"*", b"llama3*", b"*:q?", b"tiny", b"*a*a*a*a*a*a*b", b"[!a-z]*", b"hf.co/*", b"**?[]]*")
    known = b"\xff".join((b"llama3:8b", b"tiny:q4", b"hf.co/a/b:c", b"a" * 60 + b":latest"))
    return [word + b"\xff" + known for word in words]


def digests() -> list[bytes]:
    digest = str(Digest.of(b"")).encode()
    return [digest, digest.replace(b":", b"-"), digest.upper(), b"SHA256" + digest[6:], digest[:-1], digest + b"\n"]


def recipes() -> list[bytes]:
    """The size of the blob, and the recipe as it is stored: of bases with 300 and 100 bytes."""
    steps: tuple[list[object], ...] = (
        [["copy", 0, 10, 290], ["new", 5], ["copy", 1, 0, 100]],
        [["new", 5]],
        [],
        [["copy", 1, 99, 1]] * 40,
        [["new", 1], ["copy", 0, 0, 300], ["new", 4], ["copy", 0, 1, 2]],
    )
    made = []
    for listed in steps:
        size = sum(step[-1] for step in listed if isinstance(step, list))
        new = sum(step[-1] for step in listed if isinstance(step, list) and step[0] == "new")
        made.append(size.to_bytes(2, "big") + dumped({"steps": listed}) + bytes(new))
    return made


def indexes() -> list[bytes]:
    made = Bundle().index()
    unsorted = Bundle(manifests=[(full(name), b"{}", ()) for name in ("b:x", "a:x")], blobs=[]).index()
    exported = _store()["b.tar"]
    size = int(exported[124:135], 8)
    odd = dumped({**made, "needs": [], "x": {"y": [1.5, None, True, "\u20ac"]}})
    blob = made["blobs"][1]
    recipe = {**blob, "bases": [made["blobs"][0]["digest"]], "stored": {**blob, "size": 60}}
    others = [made["blobs"][0], made["blobs"][2]]
    with_recipe = dumped({**made, "needs": ["recipes"], "blobs": others, "recipes": [recipe]})
    return [
        with_recipe,
        dumped(made),
        json.dumps(made, indent=1).encode(),
        dumped(unsorted),
        exported[512 : 512 + size],
        odd,
    ]


def manifests() -> list[bytes]:
    stored = [data for path, data in _store().items() if path.startswith("models/manifests/")]
    listed = {"schemaVersion": 2, "manifests": [{"digest": str(Digest.of(b"")), "runner": "mlx"}]}
    return [*stored, dumped(listed), stored[0].replace(b"sha256:", b"sha256-"), b'{"layers":null}', stored[0] + b"x"]


def documents() -> list[bytes]:
    odd = b' {"a":1,"A":2,"b":[1.5e3,-0,"\\ud83d\\ude00",null,true,{"\\u017f":{}}],"c":12345678901234567890}\n'
    return [*manifests(), *indexes()[:2], _PARAMS, _MESSAGES, odd, b"[[[[]]]]", b'"\\ud800"', b"\xef\xbb\xbf{}"]


def configs() -> list[bytes]:
    blobs = [data for path, data in _store().items() if path.startswith("models/blobs/") and data.startswith(b"{")]
    return [*blobs, b'{"model_type":5,"capabilities":[1,{}],"context_length":1e3}', b"[]"]


def texts() -> list[bytes]:
    plain = (b"{{ .Prompt }}", b"Say hi!", b"MIT", _PARAMS, _MESSAGES)
    odd = (b'"quoted"', b"two\nlines\r\n", b'say """\nno', b'{"a b":1,"c":-1.5e-7,"d":{"e":[]}}', b'[{"role":"tool"}]')
    edge = (b'""', b'\xe2\x80\x8d"', b" \t", b'{"num_ctx":1e21,"f":"\\r"}', b'[{"role":"system","content":"\\""}]')
    return [b"\xff".join(parts) for parts in (plain, odd, edge)]


def modelfiles() -> list[bytes]:
    every = (
        'FROM ./m.gguf\nfrom p.gguf\nADAPTER a\nDRAFT d\nTEMPLATE """{{ .Prompt }}\n"""\nSYSTEM "hi"\nLICENSE MIT\n'
        'LICENSE b\r\nMESSAGE user a\nMESSAGE assistant """b\n"""\nRENDERER r\nPARSER p\nREQUIRES v0.14.0\n'
    )
    numbers = (
        "FROM x\nPARAMETER temperature 0.123456789\nPARAMETER top_k 40\nPARAMETER seed 9223372036854775807\n"
        'PARAMETER use_mmap true\nPARAMETER stop <a>\nPARAMETER stop " b"\nPARAMETER mirostat x\nPARAMETER top_p 1e-40'
    )
    odd = (
        '# no\n \tSystem \u200d"a\u200d\n"b"\r\u200bFROM """\n\tx"""  \nSYSTEM \nTEMPLATE a"""\nLICENSE \nMESSAGE user '
    )
    return [
        *(text.encode() for text in (every, numbers, odd)),
        numbers.encode("utf-16"),
        b"FROM a\nEXEC b",
        b"FROM \xff",
    ]


def selections() -> list[bytes]:
    stored = {path: data for path, data in _store().items() if path.startswith("models/manifests/")}
    pairs = [(b"n%d:x" % number, data) for number, data in enumerate(stored.values())]
    return [b"\xff".join(part for pair in chosen for part in pair) for chosen in (pairs[:1], pairs[:3], pairs)]


def records() -> list[bytes]:
    record = BatchRecord((full("a:b"),), (Digest.of(b""),), 1.5e9)
    return [record.write(), BatchRecord().write(), b'{"blobs":{},"models":"ab","expires":true}']


def units() -> list[bytes]:
    return [
        b'[Unit]\nA=b\n[Service]\nUser=ollama\nEnvironment="PATH=/usr/bin" OLLAMA_MODELS=/srv/x\\\n  y\n# no\n',
        b'[Service]\nEnvironment=\'OLLAMA_MODELS=/a b\\x20c\\u00e9%h\' "B=\\"" C\n; no\nEnvironmentFile=-/etc/x*\n',
        b"OLLAMA_MODELS=\"/srv/models\" # no\nexport A='b c'\\\nd\n;x\nB=c\\ d   e\n",
        "/srv/mod\u00e8les".encode() + b'\xe9\x01\\"%',
    ]


def headers() -> list[bytes]:
    long = member_header("manifests/hf.co/" + "n" * 80 + "/m/t", 480)
    kinds = (member("x", b"", flag=flag, link=b"../y")[:512] for flag in (b"1", b"2", b"x", b"L"))
    return [member_header("ostore/bundle.json", 740), member_header("x", 2**33), long[:512], long[1024:], *kinds]


def weights() -> list[bytes]:
    words: dict[str, Value] = {"tokenizer.ggml.tokens": ["<s>", "", "a" * 40], "tokenizer.chat_template": "{{ tools }}"}
    some: dict[str, Tensor] = {"token_embd.weight": ((32, 2), [1.0]), "v.b": ((3,), [0.5])}
    clip: dict[str, Value] = {"general.architecture": "clip", "clip.has_vision_encoder": True, "general.alignment": 64}
    return [
        gguf({**ONE_LAYER, **words}, some),
        gguf({**ONE_LAYER, **words}, some, version=1),
        gguf(ONE_LAYER, some, order=">"),
        gguf(clip, some, alignment=64),
        *split(ONE_LAYER, some, {}),
    ]


def tensors() -> list[bytes]:
    one = {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
    headers: tuple[dict[str, object], ...] = (
        {"__metadata__": {"a": "b"}, "x": one},
        {},
        {"x": one, "y": {**one, "data_offsets": [12, 24]}},
    )
    made = [(dumped(header), bytes(12 * len({*header} - {"__metadata__"}))) for header in headers]
    return [len(raw).to_bytes(8, "little") + raw + data for raw, data in made]


def links() -> list[bytes]:
    link = LinkedFile("library/llama3/llama3.gguf", "symlink", Digest.of(b"w"), 1)
    text = LinkedFile("me/a-q4/a-q4.Modelfile", "text", Digest.of(b"t"), 1, 5)
    named = {"llama3": link, "hf.co/me/a:q4": text}
    models = tuple(LinkedModel(ModelName.parse(name), "/models", (file,)) for name, file in named.items())
    records = [LinkRecord(Layout.FILES), LinkRecord(Layout.LM_STUDIO, models)]
    return [*(record.write() for record in records), b"\xff" + write_folders(["/home/a/gguf", "/mnt/b"])]


def inventories() -> list[bytes]:
    name, digest = ModelName.parse("hf.co/me/a:q4"), Digest.of(b"w")
    tensors = TensorMap(Descriptor(digest, 32), (TensorAt(32, 8, digest), TensorAt(64, 36, digest)))
    blobs = (HeldBlob(digest, 100, tensors=tensors), HeldBlob(Digest.of(b"s"), 5, is_staged=True))
    made = [Inventory((), ()), Inventory.of([HeldModel(name, Descriptor(digest, 9), (digest,))], blobs)]
    return [one.write() for one in made]


def layouts() -> list[bytes]:
    digest = f"sha256:{'a' * 64}"
    manifest = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 400}
    named = {"annotations": {"org.opencontainers.image.ref.name": "registry.ollama.ai/library/tiny:q4"}}
    image = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest,
        "size": 1,
        "platform": {"os": "x"},
    }
    version = {"imageLayoutVersion": "1.0.0"}
    entries: list[list[object]] = [[], [{**manifest, **named}], [image, manifest, {**manifest, "size": -1}, 5]]
    return [json.dumps({"schemaVersion": 2, "manifests": listed, **version}).encode() for listed in entries]


def heads() -> list[bytes]:
    return [
        b'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"',
        b'Basic realm="a \\"quoted\\" one", Negotiate, Bearer realm=https://auth.example',
        b"bytes 0-2097151/5000001",
        b"bytes 5-9/*",
    ]


def uploads() -> list[bytes]:
    return [UploadState("https://registry.example/v2/a/b/blobs/uploads/1?_state=x", 8 << 20).write(), b"{}"]


def packages() -> list[bytes]:
    blob = {"digest": f"sha256:{'a' * 64}", "size": 7}
    path = {"annotations": {"org.cncf.model.filepath": "params.json"}}
    kinds = [
        [{"mediaType": "application/vnd.docker.ai.gguf.v3", **blob}],
        [
            {"mediaType": "application/vnd.cncf.model.weight.v1.raw", **blob},
            {"mediaType": "application/vnd.cncf.model.weight.config.v1.raw", **blob, **path},
        ],
    ]
    config = json.dumps({"config": {"format": "gguf", "parameters": "1 B"}, "descriptor": {"family": "x"}}).encode()
    return [
        json.dumps({"schemaVersion": 2, "config": blob, "layers": layers}).encode() + b"\xff" + config
        for layers in kinds
    ]


def addresses() -> list[bytes]:
    return [b"https://registry.lan:5000/models/", b"http://127.0.0.1", b"HTTPS://me:hush@h/x", b"oci:x"]


def locks() -> list[bytes]:
    names = [ModelName.parse(name) for name in ("llama3", "hf.co/me/a:q4", "gemma:2b")]
    lines = LockFile.of((name, Digest.of(name.full.encode())) for name in names).write()
    return [b"", lines, b"# ours\n\n" + lines.replace(b"\n", b"\r\n# why\r\n", 1), lines.replace(b"  ", b"\t")]


def carried() -> list[bytes]:
    texts = [*inventories(), *locks()]
    return [
        *texts,
        *(zstandard.compress(text) for text in texts),
        *(text.decode().encode("utf-16") for text in texts),
        b"\xef\xbb\xbf" + texts[1],
    ]


def archives() -> list[bytes]:
    name = f"hf.co/{'n' * 80}/{'m' * 80}:q4"
    long = Bundle(manifests=[(name, dumped({"schemaVersion": 2}), ())], blobs=[]).parts()
    empty = Bundle(manifests=[], blobs=[], files=[]).parts()
    two = Bundle(blobs=[b"w"], manifests=[(full(f"{n}:x"), _manifest(), (b"w",)) for n in "ab"]).parts()
    signed = Bundle().parts()
    signed.insert(1, member("ostore/bundle.json.sig", b"signature"))
    return [tar(parts) for parts in (Bundle().parts(), long, empty, two, signed)]


def _manifest() -> bytes:
    digest = str(Digest.of(b"w"))
    return dumped({"schemaVersion": 2, "layers": [{"mediaType": MODEL, "digest": digest, "size": 1}]})


def frames() -> list[bytes]:
    text = frame(TEMPLATE.encode() * 30 + PARAMS.encode())
    span = measure_frame(_store()["b.tar.zst"])
    assert span
    return [text, run_length_frame(300_000), frame(noise(3000)), frame(b"x"), _store()["b.tar.zst"][: span.size]]


def tables() -> list[bytes]:
    return [data[data.index(b"\x5e\x2a\x4d\x18") :] for data in framed()]


def states() -> list[bytes]:
    """Of both kinds, with an even and an odd number of bytes."""
    head, spans = Digest.of(b""), (FrameSpan(100, 400), FrameSpan(500, 500))
    framed = [ExportState(head, made_by, 900, spans, CutBlob(300, head)).write() for made_by in ("auto", "three")]
    framed.append(ExportState(head, "auto", 900, spans, None, (head,), (head,)).write())
    return framed + [ExportState(head, made_by, 900, (), None).write() for made_by in ("tar", "a tar")]


def framed() -> list[bytes]:
    small = compressed(tar(Bundle().parts()))
    several = sealed((frame(content), len(content)) for content in (b"a" * 200, noise(300), b"\0" * 5000))
    return [small, several, sealed([(run_length_frame(100_000), 100_000)])]


def lists() -> list[bytes]:
    """Of one volume, of three, of one that sha256sum wrote as binary, and of another set."""
    digests = [Digest.of(bytes([number])) for number in range(3)]
    one, three = write_sums("x.tar.zst", digests[:1]), write_sums("x.tar.zst", digests)
    return [one, three, one.replace(b"  ", b" *"), write_sums("y.tar", digests)]


def parity() -> list[bytes]:
    """Packets of each kind, with noise between them."""
    described = [description(f"x.tar.zst.{number:03}") for number in (1, 2)]
    rest = [packet(f"PAR 2.0\0{kind:\0<8}".encode(), noise(64)) for kind in ("Main", "IFSC", "RecvSlic", "Creator")]
    return [b"".join((*described, *rest)), b"noise".join((*rest, *described)), description("../evil")]
