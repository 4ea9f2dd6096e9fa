"""
Seeded mistakes in the protocol, each a patch of one place. A proof that finds none of them proves nothing.

`caught_by` are the arguments of pytest for the patched source, and pytest must fail. The text that a patch replaces
occurs once, so a change of the code there requires a change here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FAULTS, STATES = "tests/torture/test_faults.py", "tests/torture/test_crash_states.py"
CUTS, MACHINE = "tests/torture/test_power_cuts.py", "tests/torture/test_state_machine.py"
SYNC = "tests/test_sync.py"


@dataclass(frozen=True)
class Bug:
    """One mistake: the file below `ostore/`, the text there and what stands there instead, and who must notice."""

    name: str
    path: str
    old: str
    new: str
    caught_by: tuple[str, ...]

    def patch(self, source: Path) -> None:
        """Put it into a copy of the source. Raises RuntimeError if the text is not there once, or is no Python then."""
        path = source / self.path
        text = path.read_text()
        if text.count(self.old) != 1:
            raise RuntimeError(f"{self.path}: the text that this patch is about has changed")
        patched = text.replace(self.old, self.new)
        compile(patched, str(path), "exec")
        path.write_text(patched)


WRITING, SWEEP, TRASH = "streams/writing.py", "places/store/removing/sweep.py", "places/store/removing/trash.py"
PUBLICATION, PINNING = "places/store/receiving/publication.py", "places/store/receiving/pinning.py"
VERIFIED = "streams/verified.py"

BUGS = (
    # What a power cut would show.
    Bug(
        "a blob or manifest gets its name before its bytes are on the disk",
        WRITING,
        "                _date(fd, modified_ns)\n            sync_file(fd)\n",
        "                _date(fd, modified_ns)\n",
        (STATES, "-k", "import"),
    ),
    Bug(
        "blobs/ is not synced before manifests come",
        PUBLICATION,
        "may not have synced the folder.\n        blobs.sync()\n",
        "may not have synced the folder.\n",
        (STATES, "-k", "import"),
    ),
    Bug(
        "the folder of a new tag is not synced",
        PUBLICATION,
        "                    self._staging.rename(filename, folder, name.tag)\n                    folder.sync()\n",
        "                    self._staging.rename(filename, folder, name.tag)\n",
        (STATES, "-k", "import"),
    ),
    Bug(
        "an export gets its name before it is on the disk",
        "places/bundle/writer.py",
        "                output.sync()\n                if isinstance",
        "                if isinstance",
        (STATES, "-k", "export"),
    ),
    Bug(
        "what was renamed is said to be done before it is on the disk",
        "streams/durable.py",
        "            with naming(self.path):\n                sync_file(self._fd)\n\n    def sync_entry",
        "            pass\n\n    def sync_entry",
        (CUTS, "-k", "outlives and ext4 and import"),
    ),
    # What a kill would show.
    Bug(
        "manifests come before blobs",
        PUBLICATION,
        "            self._place_blobs(blobs, staged, relied_upon)\n            for manifest in manifests:\n"
        "                self._place_manifest(tree, manifest)\n",
        "            for manifest in manifests:\n                self._place_manifest(tree, manifest)\n"
        "            self._place_blobs(blobs, staged, relied_upon)\n",
        (FAULTS, "-k", "import and killed"),
    ),
    Bug(
        "an export is written under its own name",
        "places/bundle/writer.py",
        "return self.path.name + PART",
        "return self.path.name",
        (FAULTS, "-k", "export and killed"),
    ),
    Bug(
        "rm takes the blobs before the manifest",
        SWEEP,
        "                for number, manifest in enumerate(manifests):\n"
        "                    self._take_manifest(batch, manifest_filename(number), manifest)\n"
        "                stayed = self._take_blobs(batch, blobs, latest) | self._take_downloads(\n"
        "                    batch, downloads, latest_download\n                )\n",
        "                stayed = self._take_blobs(batch, blobs, latest) | self._take_downloads(\n"
        "                    batch, downloads, latest_download\n                )\n"
        "                for number, manifest in enumerate(manifests):\n"
        "                    self._take_manifest(batch, manifest_filename(number), manifest)\n",
        (FAULTS, "-k", "rm and killed"),
    ),
    # What an error would show.
    Bug(
        "an error takes back no blob that was placed",
        PUBLICATION,
        "            self._on_failure(lambda: self._take_back_blobs(blobs))\n",
        "",
        ("tests/test_publication.py", "-k", "takes_everything_back"),
    ),
    Bug(
        "an error while taking back hides the first one",
        PUBLICATION,
        "            with contextlib.suppress(OSError, OstoreError):\n                take_back()\n",
        "            take_back()\n",
        ("tests/test_publication.py", "-k", "hide_why"),
    ),
    Bug(
        "a short write counts as a whole one",
        WRITING,
        "    while views:\n        written =",
        "    if views:\n        written =",
        (FAULTS, "-k", "cut_short"),
    ),
    # What hostile or damaged bytes would show.
    Bug(
        "the hash of a blob is not compared",
        VERIFIED,
        "    if hasher.hexdigest() != descriptor.digest.hex:\n",
        "    if not hasher.hexdigest():\n",
        ("tests/test_verified.py", "tests/test_verify.py"),
    ),
    Bug(
        "a blob may be longer than it promises",
        VERIFIED,
        "        if seen > descriptor.size:\n            break\n",
        "",
        ("tests/test_verified.py",),
    ),
    Bug(
        "a name may lead out of the store",
        "formats/name.py",
        '_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")',
        '_MODEL = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./-]{0,79}")',
        ("tests/test_name.py",),
    ),
    Bug(
        "a digest may be any text of that length",
        "formats/digest.py",
        '_CANONICAL = re.compile(r"sha256:([0-9a-f]{64})")',
        '_CANONICAL = re.compile(r"sha256:(.{64})")',
        ("tests/test_digest.py",),
    ),
    Bug(
        "what is shown of a name is not escaped",
        "cli/text.py",
        "printable = clean(text).encode(",
        "printable = text.encode(",
        ("tests/torture/test_output.py", "-k", "list"),
    ),
    Bug(
        "a seek table may contradict itself",
        "formats/seek_table.py",
        '    if int.from_bytes(table[4:8], "little") != len(table) - HEADER_BYTES:\n',
        "    if not table:\n",
        ("tests/hostile/test_bit_flips.py", "-k", "headers_of_frames"),
    ),
    Bug(
        "what was written of a blob while it was damaged stays in a bundle",
        "places/bundle/journal.py",
        "            if cut and size == cut.size and digest != cut.digest:\n",
        "            if cut and size < cut.size < 0:\n",
        ("tests/test_export_resumed.py", "-k", "while_it_was_damaged"),
    ),
    Bug(
        "verify has nothing to say about manifests",
        "operations/verify.py",
        "        self.problems = (*(problem for _, problem in unclear), *_entry_problems(findings))\n",
        "        self.problems: tuple[Problem, ...] = ()\n",
        ("tests/torture/test_damage.py",),
    ),
    # What a registry, or a client, would show.
    Bug(
        "the index of a layout gets its name before its bytes are on the disk",
        "places/oci_layout/sink.py",
        "                sync_file(fd)\n                directory.rename(INDEX",
        "                directory.rename(INDEX",
        (STATES, "-k", "export-oci-new"),
    ),
    Bug(
        "a range may begin anywhere",
        "streams/ranges.py",
        "        if span is None or span[:2] != (first, part.end):\n",
        "        if span is None:\n",
        ("tests/hostile/test_registries.py", "-k", "hostile_registry"),
    ),
    Bug(
        "a login goes to whatever host gives the tokens",
        "places/registry/authorization.py",
        "        if login and (is_own or self._is_allowed(challenge.realm)):\n",
        "        if login:\n",
        ("tests/test_credentials.py", "-k", "realm_on_another_host"),
    ),
    Bug(
        "an upload goes on wherever its state says",
        "places/registry/upload.py",
        "        if state is None or origin_of(state.location) != origin_of(self.client.base):\n",
        "        if state is None:\n",
        ("tests/test_push.py", "-k", "state_that_is_wrong"),
    ),
    Bug(
        "sync deletes what a registry does not list",
        "api/sync/registry.py",
        "            return not address.has(name) or not source.lacks(name)\n",
        "            return not address.has(name)\n",
        (SYNC, "-k", "short_list"),
    ),
    Bug(
        "sync deletes although a model could not be copied",
        "api/sync/sync.py",
        "        if removal and copied.left:\n",
        "        if removal is None and copied.left:\n",
        (SYNC, "-k", "damaged_blob"),
    ),
    Bug(
        "a blob of other bytes is served",
        "server/verification.py",
        'return stamp, "" if hashed.hexdigest() == blob.digest.hex else',
        'return stamp, "" if hashed.hexdigest() else',
        (SYNC, "-k", "damaged_in_a_mirror"),
    ),
    Bug(
        "a file that changes is served to its end",
        "server/contents.py",
        '        if stamp_of(os.fstat(self._fd)) != self.stamp:\n            raise IntegrityError("the file',
        '        if not stamp_of(os.fstat(self._fd)):\n            raise IntegrityError("the file',
        ("tests/hostile/test_served.py", "-k", "f121"),
    ),
    # What somebody beside us would show.
    Bug(
        "the lock keeps nobody out",
        "places/store/workspace.py",
        '            wait_lock(fd, str(self.directory.path / "lock"))\n',
        "",
        ("tests/torture/test_races.py",),
    ),
    Bug(
        "gc does not look again once the blobs are in the trash",
        SWEEP,
        "        return None, self._return_blobs(batch, references.users.__contains__)\n",
        "        return None, []\n",
        ("tests/test_gc.py", "-k", "between_the_two_looks"),
    ),
    Bug(
        "gc takes a manifest that it cannot read for one that needs nothing",
        "operations/gc.py",
        "    _refuse_doubts(census, references, terms)\n",
        "",
        (MACHINE,),
    ),
    Bug(
        "gc goes by mtime alone",
        "places/store/survey/census.py",
        "        return max(self.mtime, self.ctime)\n",
        "        return self.mtime\n",
        ("tests/test_census.py", "tests/test_gc_plan.py"),
    ),
    Bug(
        "what a download under way has finished is no younger than it is",
        "operations/gc.py",
        "    latest = min(terms.now, terms.now if began is None else began) - terms.grace\n",
        "    latest = terms.now - terms.grace\n",
        ("tests/test_gc_plan.py",),
    ),
    Bug(
        "what is put back overwrites what has come meanwhile",
        TRASH,
        "            return standing is not None and kept is not None and os.path.samestat(standing, kept)\n",
        "            self.directory.rename(filename, blobs, filename)\n",
        ("tests/test_gc.py", "-k", "overwritten or overwrites"),
    ),
    Bug(
        "rm takes blobs that others share",
        "operations/removal.py",
        "    if is_shared:\n        return StayReason.SHARED\n",
        "",
        ("tests/test_rm.py", "-k", "share"),
    ),
    Bug(
        "a blob that is there is relied upon without being hashed",
        PINNING,
        "            if not self._terms.trusts(blob.digest) and not"
        " is_sound(where, name, blob, progress, follows=is_link):\n",
        "            if not where:\n",
        (FAULTS, "-k", "import"),
    ),
    Bug(
        "a blob that a server removed meanwhile is not put back",
        PUBLICATION,
        "            vanished = self._vanished(blobs, digests)\n",
        "            vanished: list[Digest] = []\n",
        ("tests/test_import.py", "tests/torture/test_races.py", "-k", "prune"),
    ),
    Bug(
        "what doctor says to set aside is deleted by it",
        "operations/doctor/finding.py",
        'made.then(remedy.command("mv", "-n", self.root / relative, target))',
        'made.then(remedy.command("rm", self.root / relative))',
        ("tests/test_remedies.py", "-k", "ends_what and blob-foreign"),
    ),
)
