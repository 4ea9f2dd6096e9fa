"""The facts that checks get, and the findings that they return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ostore.formats import remedy
from ostore.formats.remedy import NOTHING, Remedy
from ostore.host.machine import Host
from ostore.operations.loading import Unloadable
from ostore.places.store.survey.examination import Examination
from ostore.streams.disk import DiskState

Severity = Literal["problem", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Facts:
    """
    All that checks know.

    The models in `stubs` run on another host, and those in `unlisted` have no readable config. `unloadable` are those
    that not every program loads. `now` is seconds since 1970.
    """

    store: Examination
    disk: DiskState
    host: Host
    stubs: tuple[str, ...]
    unlisted: tuple[str, ...]
    unloadable: Unloadable
    now: float

    @property
    def root(self) -> Path:
        return self.store.root

    def ostore(self, *words: object, before: str = "", after: str = "", user: str = "") -> Remedy:
        """Return an ostore command about this store. It names the store, unless root finds the same one without."""
        models = None if self.host.is_found_by_root else self.root
        return remedy.ostore(*words, models=models, before=before, after=after, user=user)

    def repair(self) -> Remedy:
        """Return the way to fetch good copies of whatever is damaged."""
        return self.ostore("repair", "--from", "BUNDLE")

    def pulled_anew(self, model: str, relative: str) -> Remedy:
        """
        Return the way to have Ollama write the manifest of a model anew. `relative` is its path in the store.

        The old one is set aside first: while it lies there, Ollama deletes what it lists and the new one does not.
        """
        return self.set_aside(relative).then(remedy.command("ollama", "pull", model))

    @property
    def beside(self) -> Path:
        """The folder beside the store for what is set aside."""
        return self.root.with_name(f"{self.root.name}-set-aside")

    def set_aside(self, relative: str, before: str = "") -> Remedy:
        """Return the way to move an entry of the store, by its path, out of it: to the same path beside the store."""
        target = self.beside / relative
        made = remedy.command("mkdir", "-p", target.parent, before=before)
        return made.then(remedy.command("mv", "-n", self.root / relative, target))


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing to know about a store.

    `code` never changes between versions. `subject` is a path relative to the store, a model, a digest or whatever else
    is meant. `detail` says what was found there, `meaning` what it does to a user, and `remedy` what to type or do,
    false if there is nothing. `is_fixable` says that `--fix` fixes it. `models` suffer from it. `size` is bytes, or
    None where none matter.
    """

    code: str
    severity: Severity
    subject: str
    detail: str
    meaning: str
    remedy: Remedy
    is_fixable: bool = False
    models: tuple[str, ...] = ()
    size: int | None = None


# Findings about bytes. Their exit code differs from that of manifests, names and layout.
BYTES = frozenset({"blob-missing", "blob-size"})
# Findings about what could not be looked at.
UNSEEN = frozenset({"not-checked"})

_NO_PRUNE = "while it lies there, Ollama deletes no unused blobs when it starts"
# What each finding does to a server: server/routes.go and manifest/manifest.go of ollama at fb30760.
MEANINGS: Mapping[str, str] = {
    "path-has-glob": "Ollama uses the store's path in a glob, so it finds no models if the path contains * ? or [",
    "manifests-missing": "there are blobs, but no manifests: the folder was not copied whole, or a disk is not mounted",
    "folder-lost": "the folder is missing, and so are all models in it; is a disk not mounted?",
    "manifest-empty": f"an empty file where a manifest should be: the model is gone, and {_NO_PRUNE}",
    "manifest-broken": f"not a manifest: the model is not listed, and {_NO_PRUNE}",
    "manifest-link-dangling": "a link that leads nowhere among the models: `ollama list` and `rm` fail for all of them",
    "manifest-stray": f"among the models, but with a name that no model can have: {_NO_PRUNE}",
    "manifest-not-file": f"not a file, although a manifest should be here: {_NO_PRUNE}",
    "manifest-list": "a manifest list whose manifests cannot be read: nobody knows which blobs it needs",
    "digest-spelling": "a digest spelled with '-' or capitals: the next start of Ollama deletes this model's blobs",
    "manifest-ambiguous": "two programs may read this manifest in two ways, so ostore does not export the model",
    "manifest-unfit": "Ollama lists the model, but its manifest is not in order and ostore does not export it",
    "name-twins": "names that differ only in capitals are one name to Ollama: it takes one of them at random",
    "blob-missing": "a model cannot run, because bytes of it are not there",
    "blob-size": "a model cannot run or answers nonsense, because a blob is cut short or grown",
    "blob-not-file": "it has the name of a blob but is no file, so Ollama can neither read nor replace it",
    "blob-misnamed": "Ollama does not find a blob under such a name",
    "parent-closed": "Ollama's user may not pass through this folder, so it cannot reach the store at all",
    "server-cannot-read": "Ollama's user may not read this, so the models that need it do not work",
    "server-cannot-write": "Ollama's user may not write here, so `ollama pull`, `cp` and `rm` fail on it",
    "blob-owner": "not owned by Ollama's user: `ollama create` FROM a model that uses it fails",
    "open-to-all": "every user of this machine may write here, and so replace or delete models",
    "odd-mode": "a blob with the set-user-ID or set-group-ID bit; Ollama never sets these",
    "part-twins": "parts of names that differ only in capitals: Ollama may swap them, and not find the model",
    "selector-tag": "Ollama takes this tag for a choice of source, so the model cannot be shown, run or removed by it",
    "name-unholdable": "this kind of disk cannot keep such a name, or keeps it as another one",
    "cloud-stub": "this model has no weights here: it runs on a host in the internet, never offline",
    "manifest-misplaced": "a manifest where Ollama does not look, so its model is not listed; gc keeps its blobs",
    "manifest-foreign": "a file where only folders should be: Ollama ignores it",
    "side-file": "a side file that an operating system wrote into the folder: it is no part of the store",
    "name-alias": "a second name of a model, which to Ollama is the same name",
    "config-unreadable": "the config is not JSON, so no server lists the model",
    "weights-in-parts": "the weights are parts of a split set: no Ollama loads them before they are one file",
    "ollama-only": "models whose weights other programs cannot load, such as llama.cpp, or load wrong",
    "blob-foreign": "not a blob: Ollama deletes such a file when it starts",
    "blob-foreign-folder": "not a blob: Ollama ignores the folder and whatever is in it",
    "blob-link-dangling": "a link that leads nowhere under the name of a blob that no model here needs",
    "blob-linked": "a blob that lies elsewhere: while that disk is not mounted, its models do not work",
    "blob-legacy-name": "a name from before Ollama 0.1.30: a server finds it after its next start, which renames it",
    "workspace-unsafe": "ostore refuses to write to this store: another user could change the folder .ostore",
    "low-space": "the disk is nearly full, so the next pull or import may fail",
    "low-inodes": "the disk can hold hardly any more files, whatever space is left",
    "disk-volatile": "what is on this kind of disk is gone after a restart, or with its container",
    "disk-limited": "this kind of disk has no owners, no hard links, or no large files, so ostore can promise less",
    "disk-network": "on this kind of disk, locks and syncs may not reach the other side: let only one host write",
    "read-only": "the disk is mounted read-only: models can be used, but not added, changed or removed",
    "folder-empty": "Ollama removes empty folders when it starts, cannot do so on a read-only disk, and gives up",
    "cloud-not-disabled": "this host has no way out, but its Ollama still tries to reach ollama.com",
    "other-store": "models in another store: an Ollama server sees the models of its own store only",
    "server-elsewhere": "the Ollama server that runs now uses another store, so it does not see these models",
    "setting-doubtful": "the setting of the store is taken as it is written, which is hardly what was meant",
    "times-ahead": "changed in the future: a clock was or is wrong; Ollama and gc keep such files as if they were new",
    "not-checked": "this could not be read, so nothing is known of what is in it",
    "orphans": "blobs that no model here needs",
    "download-unfinished": "a download that has not ended: `ollama pull` goes on with it, a start of Ollama deletes it",
    "temporary": "an unfinished file of Ollama's: its next start deletes it",
    "working-folder": "a working folder that an interrupted `ollama create` left; Ollama never removes it",
    "import-unfinished": "what an interrupted import had received: the next import goes on with it",
    "quarantine": "damaged or odd files that ostore has set aside; nobody needs them for a model",
    "trash": "what gc or rm deleted and still keeps",
    "coming-tree": "manifests in a tree that no released Ollama reads; ostore keeps the blobs they need",
}  # fmt: skip


def finding(
    code: str,
    severity: Severity,
    subject: str,
    *,
    detail: str = "",
    remedy: Remedy = NOTHING,
    is_fixable: bool = False,
    models: tuple[str, ...] = (),
    size: int | None = None,
) -> Finding:
    """Make a finding of a known code, with its meaning."""
    return Finding(code, severity, subject, detail, MEANINGS[code], remedy, is_fixable, models, size)
