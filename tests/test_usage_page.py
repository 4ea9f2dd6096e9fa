"""The page of `ostore du --html`: its content, what it may load, how browsers show it, how its file is written."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

import ostore
from ostore.formats.wording import human_bytes
from ostore.page.treemap import Item, Region, lay_out
from ostore.page.usage_page import usage_page
from tests.support import MODEL, OSTORE, TEMPLATE, Store, full, later, noise, unmeasured
from tests.support import ostore as run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
NOW = 1_795_000_000.0
HOSTILE = "<script>alert(1)</script>\"' onload=x &amp;\n\x1b]0;owned\x07\u202e{{ 7 }}"
VOID = {"meta", "rect", "link", "img", "br"}


@dataclass
class Page(HTMLParser):
    """A page taken apart: its elements with their attributes, and their text."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1], data))

    def all(self, tag: str, css: str = "") -> list[dict[str, str]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and (not css or css in attributes.get("class", "").split())
        ]


def taken_apart(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page._open == []
    return page


def sized(store: Store, seed: str, size: int) -> dict[str, object]:
    """A blob that takes up so much room; its bytes do not matter here, nobody hashes them."""
    digest = hashlib.sha256(seed.encode()).hexdigest()
    path = store.root / f"blobs/sha256-{digest}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(b"x" * size)
    return {"mediaType": MODEL, "digest": f"sha256:{digest}", "size": size}


def make_three(root: Path) -> Store:
    store = Store(root)
    weights = sized(store, "llama", 900_000)
    store.add(full("llama3:8b"), weights, store.layer(TEMPLATE, b"t"))
    store.add(full("llama3:latest"), weights)
    store.add("hf.co/bartowski/Mistral-Small-24B-Instruct-2501-GGUF:Q4_K_M", sized(store, "mistral", 1_200_000))
    sized(store, "orphan", 400_000)
    (store.root / f"blobs/sha256-{'a' * 64}-partial").write_bytes(noise(100_000))
    return store


def make_many(root: Path, count: int = 300) -> Store:
    store = Store(root)
    config = store.config()
    for number in range(count):
        weights = sized(store, f"w{number // 2 if number % 5 == 0 else number}", 4096 * (1 + 3000 // (number + 3)))
        own = sized(store, f"own{number}", 4096 * (1 + number % 7))
        store.add(
            f"hf.co/user{number % 9}/A-Model-Of-Some-Length-{number}:Q{number % 8}_K_M", weights, own, config=config
        )
    return store


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_three(tmp_path_factory.mktemp("three") / "models").root


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_many(tmp_path_factory.mktemp("many") / "models").root


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every text that a page takes from outside is an attack."""
    root = tmp_path_factory.mktemp("hostile") / HOSTILE.replace("/", "")
    store = make_three(root)
    for folder in (store.root, store.root / "manifests/registry.ollama.ai/library/llama3"):
        (folder / "</style><img src=x onerror=alert(2)>".replace("/", "\u2215")).mkdir()
        (folder / "x' style='color:red").mkdir()
        os.mkdir(os.fsencode(folder) + b"/\xff\xfe")  # noqa: PTH102 - bytes that are no text
    return store.root


def page_of(root: Path, *names: str) -> str:
    # Young orphans stay for now.
    with later(2):
        return usage_page(ostore.du(names, models=root), now=NOW)


@pytest.fixture(params=["three", "many", "hostile", "empty"])
def text(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "manifests").mkdir(exist_ok=True)
    return page_of(tmp_path if request.param == "empty" else request.getfixturevalue(request.param))


def test_a_page_needs_nothing_from_elsewhere_and_lets_nothing_in(text: str) -> None:
    page = taken_apart(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "foreignobject", "use"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in {"style", "src", "xlink:href"}], tag
        assert attributes.get("href", "#").startswith("#")
    style = next(text for tag, text in page.texts if tag == "style")
    assert not re.findall(r"@import|url\(", style)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    # Nothing before the policy could have loaded anything.
    assert [tag for tag, _ in page.elements[:4]] == ["html", "head", "meta", "meta"]


def test_a_page_is_whole_html_whose_links_lead_somewhere(text: str) -> None:
    page = taken_apart(text)
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert max(ids.values()) == 1
    assert {attributes["href"][1:] for attributes in page.all("a")} <= set(ids)
    labels = {attributes["aria-labelledby"] for attributes in page.all("section")}
    assert labels <= set(ids)


def test_what_comes_from_outside_is_text_and_nothing_more(hostile: Path) -> None:
    text = page_of(hostile)
    page = taken_apart(text)
    assert "\x1b" not in text
    assert "\u202e" not in text
    title = next(text for tag, text in page.texts if tag == "title")
    for shown in (title, next(text for tag, text in page.texts if tag == "h1")):
        assert "<script>alert(1)<script>\"' onload=x &amp;\\n\\x1b]0;owned\\x07\\u202e{{ 7 }}" in shown
    found = {text for tag, text in page.texts if tag == "b"}
    assert {"x' style='color:red", "\\udcff\\udcfe"} <= found


def test_a_page_says_what_the_report_says_largest_first(three: Path) -> None:
    with later(2):
        report = ostore.du(models=three)
    page = taken_apart(page_of(three))
    names = [text for tag, text in page.texts if tag == "th"]
    assert names[5 : 5 + 3] == [model.name for model in report.models]
    values = [int(attributes["value"]) for attributes in page.all("data")]
    assert values[:4] == [space.allocated for space in (report.total, report.unique, report.shared, report.reclaimable)]
    for model in report.models:
        assert {model.size.allocated, model.shared.allocated, model.unique.allocated} <= set(values)
    shown = {text for tag, text in page.texts if tag == "data"}
    assert human_bytes(report.total.allocated) in shown


def test_tables_have_captions_and_heads_that_a_screen_reader_can_use(many: Path) -> None:
    page = taken_apart(page_of(many))
    assert len(page.all("table")) == len(page.all("caption")) == 3
    assert {attributes["scope"] for attributes in page.all("th")} == {"col", "row"}
    # Cells that a narrow screen shows below each other stay cells of a table.
    roles = {"table": "table", "tr": "row", "td": "cell", "thead": "rowgroup", "tbody": "rowgroup"}
    for tag, role in roles.items():
        assert {attributes["role"] for attributes in page.all(tag)} == {role}
    assert ("html", {"lang": "en"}) in page.elements
    assert len([tag for tag, _ in page.elements if tag == "h1"]) == 1


def test_the_picture_can_be_walked_with_a_keyboard_and_heard(three: Path) -> None:
    page = taken_apart(page_of(three))
    assert [attributes["role"] for attributes in page.all("svg", "map")] == ["list", "list"]
    cells = page.all("a", "cell")
    assert len(cells) == len(
        [1 for tag, attributes in page.elements if (tag, attributes.get("role")) == ("g", "listitem")]
    )
    assert len([1 for tag, _ in page.texts if tag == "title"]) == len(cells) + 1
    spoken = [cell["aria-label"] for cell in cells]
    assert any(re.fullmatch(r"llama3:\*: 90\d KB shared, 2 models", label) for label in spoken)
    assert any(label.startswith("orphans: 40") and label.endswith("reclaimable") for label in spoken)
    # Whoever does not want to walk through it is offered a way around it first.
    assert page.all("a")[0] == {"class": "skip", "href": "#models"}


def test_three_hundred_models_all_have_a_row_and_the_picture_has_no_more_than_can_be_seen(many: Path) -> None:
    page = taken_apart(page_of(many))
    assert len([1 for tr in page.all("tr") if tr.get("id", "").startswith("model-")]) == 300
    assert 20 < len(page.all("a", "cell")) < 300
    assert any(re.match(r"\d+ smaller models: ", cell["aria-label"]) for cell in page.all("a", "cell"))


def regions(*sizes: list[int]) -> list[Region]:
    return [
        Region(
            f"kind{number}", [Item(f"name{index}:tag", size, "x") for index, size in enumerate(listed)], "model", "y"
        )
        for number, listed in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    "sizes",
    [
        ([5], [], []),
        ([70, 20, 10], [30], [1]),
        ([10**12, 1], [5 * 10**11] * 3, [10**9]),
        ([1000 - n for n in range(400)],),
    ],
    ids=["one", "few", "far apart", "many"],
)
@pytest.mark.parametrize("shape", [(1120, 560), (360, 560)])
def test_areas_are_as_large_as_their_bytes_and_nothing_overlaps(
    sizes: tuple[list[int], ...], shape: tuple[int, int]
) -> None:
    laid = lay_out(regions(*sizes), *shape)
    drawn = sum(cell.item.size for cell in laid.cells)
    assert drawn + sum(item.size for item in laid.too_small) == sum(map(sum, sizes))
    pixels = shape[0] * shape[1] / drawn
    for cell in laid.cells:
        # Each gives up two pixels for the gap to its neighbours.
        if min(cell.width, cell.height) > 1:
            assert (cell.width + 2) * (cell.height + 2) == pytest.approx(cell.item.size * pixels, rel=1e-6)
        assert cell.x >= 0
        assert cell.y >= 0
        assert cell.x + cell.width <= shape[0] + 1
        assert cell.y + cell.height <= shape[1] + 1
    for number, one in enumerate(laid.cells):
        for other in laid.cells[:number]:
            apart_x = one.x >= other.x + other.width or other.x >= one.x + one.width
            assert apart_x or one.y >= other.y + other.height or other.y >= one.y + one.height


def test_many_models_of_one_size_are_not_all_hidden_behind_one_number() -> None:
    laid = lay_out(regions([1000] * 1000), 1120, 560)
    assert len(laid.cells) > 20
    assert sum(cell.item.size for cell in laid.cells) == 1_000_000


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs a large file at once")
def test_what_is_too_small_to_draw_is_named_in_words(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.model("big:latest", b"w")
    with store.blob_path(b"w").open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 60_000_000)
    captions = [text for tag, text in taken_apart(page_of(store.root)).texts if tag == "figcaption"]
    assert len(captions) == 2
    assert all(re.fullmatch(r"Too small to draw: .*manifests [0-9.]+ K?B.*\.", caption) for caption in captions)


def test_text_stays_in_its_cell() -> None:
    laid = lay_out(regions([10**6 // (n + 1) for n in range(200)]), 1120, 560)
    assert any(cell.label for cell in laid.cells)
    for cell in laid.cells:
        lines = (*cell.label, *cell.more)
        assert len(lines) * 17 <= cell.height
        assert all(len(line) * 8.3 <= cell.width for line in lines)


def colours(style: str) -> list[dict[str, str]]:
    """The colours of the light and of the dark scheme."""
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    return [dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})[;\s]", block)) for block in blocks]


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_have_contrast_enough_in_both_schemes() -> None:
    style = resources.files("ostore.page").joinpath("usage.css").read_text("utf-8")
    schemes = colours(style)
    assert len(schemes) == 2
    for scheme in schemes:
        for text in ("ink", "dim"):
            for ground in ("page", "card", "mark", "track"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
        assert contrast(scheme["link"], scheme["card"]) >= 4.5
        for fill in ("unique", "shared", "reclaimable", "other"):
            assert contrast(scheme["on"], scheme[fill]) >= 4.5, fill
            assert contrast(scheme["page"], scheme[fill]) >= 3, fill
            assert contrast(scheme["ring"], scheme[fill]) >= 3, fill


# ---- the file


def test_a_page_is_a_file_like_any_other_that_a_person_makes(three: Path, tmp_path: Path) -> None:
    target = tmp_path / "usage.html"
    done = run("du", "--html", target, "--models", three)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"wrote {target}")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
    assert os.listdir(tmp_path) == ["usage.html"]  # noqa: PTH208 - names
    assert target.read_text("utf-8").startswith("<!doctype html>")


def test_a_file_that_is_there_is_replaced_only_when_asked(three: Path, tmp_path: Path) -> None:
    target = tmp_path / "usage.html"
    target.write_text("mine")
    done = run("du", "--html", target, "--models", three)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ostore: error[usage]: {target}: exists (--replace overwrites it)\n"
    assert target.read_text() == "mine"
    assert run("du", "--html", target, "--replace", "--models", three).returncode == 0
    assert target.read_text("utf-8").startswith("<!doctype html>")
    assert os.listdir(tmp_path) == ["usage.html"]  # noqa: PTH208 - names


def test_what_comes_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    from ostore.page.writing import write_page

    target = tmp_path / "usage.html"
    target.write_text("came meanwhile")
    with pytest.raises(ostore.UsageError, match="exists"):
        write_page(target, "page", replace=False)
    assert target.read_text() == "came meanwhile"
    assert os.listdir(tmp_path) == ["usage.html"]  # noqa: PTH208 - names


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a place where a file cannot be made")
@pytest.mark.parametrize(("place", "code"), [("nowhere/usage.html", 3), ("", 2), ("-", 2)])
def test_a_place_where_no_page_can_be_is_refused_before_any_work(
    three: Path, tmp_path: Path, place: str, code: int
) -> None:
    target = "-" if place == "-" else str(tmp_path / place)
    done = run("du", "--html", target, "--models", three, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert list(tmp_path.iterdir()) == []


@unmeasured
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit")
@pytest.mark.parametrize("options", [(), ("--replace",)], ids=["new", "replace"])
def test_a_disk_that_holds_only_half_of_it_gets_none_of_it(
    three: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    target = tmp_path / "usage.html"
    if options:
        target.write_text("mine")
    command = ["prlimit", "--fsize=1000", *OSTORE, "du", "--html", str(target), "--models", str(three), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr == f"ostore: error[no-space]: {target}: File too large\n"
    assert [path.read_text() for path in tmp_path.iterdir()] == (["mine"] if options else [])


def test_asking_to_replace_without_a_page_is_a_mistake(three: Path) -> None:
    done = run("du", "--replace", "--models", three)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("library", ["jinja2", "squarify"])
def test_without_the_extra_it_says_what_to_type(three: Path, tmp_path: Path, library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; from ostore.cli.main import main; main()"
    command = [sys.executable, "-c", code, "du", "--html", str(tmp_path / "x.html"), "--models", str(three)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("(pip install 'ostore[report]')\n")
    plain = subprocess.run([*command[:4], *command[6:]], capture_output=True, text=True, check=False)
    assert (plain.returncode, plain.stderr) == (0, "")


def test_a_page_and_a_document_can_be_had_at_once(three: Path, tmp_path: Path) -> None:
    done = run("du", "llama3:8b", "--html", tmp_path / "x.html", "--json", "--models", three)
    assert done.stdout.startswith('{\n  "schema": "ostore.du/1"')
    page = taken_apart((tmp_path / "x.html").read_text("utf-8"))
    assert len([1 for tr in page.all("tr") if tr.get("id", "").startswith("model-")]) == 1
    assert any(cell["aria-label"].startswith("models not asked for: 1.2 MB") for cell in page.all("a", "cell"))


# ---- in a browser


def browse(path: Path, *options: str, profile: Path) -> subprocess.CompletedProcess[str]:
    """Open a page in Chromium, with no network at all where that can be had, and else with none that it could use."""
    assert CHROMIUM
    alone = ["unshare", "-n"] if subprocess.run(["unshare", "-n", "true"], check=False).returncode == 0 else []
    command = [
        *alone, CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr", f"--user-data-dir={profile}", "--proxy-server=http://127.0.0.1:9",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=3000", *options, path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=120)


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the page made the browser complain about; its own pages do so as well."""
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line and "source: chrome://" not in line]


def pixel(path: Path) -> tuple[int, ...]:
    """The first pixel of a PNG of 8 bits a channel; its row is filtered against nothing before it."""
    data, at, packed = path.read_bytes(), 8, b""
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        packed += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    return tuple(zlib.decompress(packed)[1:4])


@needs_chromium
@pytest.mark.parametrize("name", ["three", "many", "hostile"])
def test_a_browser_shows_the_page_without_a_word_of_complaint(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "usage.html"
    path.write_text(page_of(request.getfixturevalue(name)), "utf-8")
    done = browse(path, "--dump-dom", profile=tmp_path / "profile")
    assert console(done) == []
    # The browser saw the elements that were written, and made none out of a name.
    assert tags(done.stdout) == tags(path.read_text("utf-8"))
    assert "<script" not in done.stdout


def tags(text: str) -> Counter[str]:
    found: Counter[str] = Counter()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            found[tag] += 1

    Tags().feed(text)
    return found


@needs_chromium
def test_the_policy_is_in_force_and_a_broken_one_would_be_seen(three: Path, tmp_path: Path) -> None:
    text = page_of(three)
    path = tmp_path / "usage.html"
    path.write_text(text.replace("</main>", "<p style='color:red'>x</p><script>1</script></main>"), "utf-8")
    told = console(browse(path, "--dump-dom", profile=tmp_path / "profile"))
    assert len(told) == 2
    assert all("Content Security Policy" in line for line in told)


@needs_chromium
@pytest.mark.parametrize(
    ("scheme", "expected"), [(1, (0xF6, 0xF7, 0xF9)), (0, (0x10, 0x14, 0x1A))], ids=["light", "dark"]
)
def test_the_style_is_let_in_light_and_dark(
    three: Path, tmp_path: Path, scheme: int, expected: tuple[int, ...]
) -> None:
    path, shot = tmp_path / "usage.html", tmp_path / "shot.png"
    path.write_text(page_of(three), "utf-8")
    option = f"--blink-settings=preferredColorScheme={scheme}"
    browse(path, option, f"--screenshot={shot}", "--window-size=1200,900", profile=tmp_path / "profile")
    assert pixel(shot) == expected


HARNESS = """<!doctype html><iframe id="f" width="{width}" height="800" src="usage.html"></iframe><pre id="o"></pre>
<script>
document.getElementById("f").onload = event => {{
  const page = event.target.contentDocument, root = page.documentElement;
  const shown = [...page.querySelectorAll("a.cell")].filter(cell => cell.getClientRects().length);
  const first = shown[0];
  first.focus();
  const styled = event.target.contentWindow.getComputedStyle(first.querySelector(".ring"));
  const ring = first.matches(":focus") ? styled.stroke : "";
  const small = shown.filter(c => {{ const b = c.getBoundingClientRect(); return b.width * b.height < 150; }}).length;
  document.getElementById("o").textContent = JSON.stringify([root.scrollWidth, shown.length, small, ring]);
}};
</script>"""


@needs_chromium
@pytest.mark.parametrize(("name", "width"), [("three", 320), ("many", 320), ("hostile", 320), ("many", 1200)])
def test_a_page_fits_a_telephone_and_shows_one_picture_whose_cells_take_the_focus(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, width: int
) -> None:
    text = page_of(request.getfixturevalue(name))
    (tmp_path / "usage.html").write_text(text, "utf-8")
    (tmp_path / "harness.html").write_text(HARNESS.format(width=width), "utf-8")
    options = ("--allow-file-access-from-files", "--dump-dom", "--window-size=1400,1000")
    done = browse(tmp_path / "harness.html", *options, profile=tmp_path / "profile")
    found = re.search(r'<pre id="o">\[(\d+),(\d+),(\d+),"([^"]*)"\]', done.stdout)
    assert found, done.stdout
    scroll_width, cells, small, ring = found.groups()
    assert int(scroll_width) <= width
    assert 0 < int(cells) < len(taken_apart(text).all("a", "cell"))
    assert int(small) <= 2
    assert ring.startswith("rgb(")
