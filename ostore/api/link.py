"""Give other programs readable names for the weights of models, keep such a folder up to date, and take it back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.modelfile import modelfile_of
from ostore.api.plain_models import (
    PlainModel,
    choose_models,
    lost,
    plain_model,
    sources,
    telling_permissions,
    weights_of,
    weights_warning,
)
from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, NotFoundError, OstoreError, UsageError
from ostore.formats.link_layout import Layout
from ostore.formats.link_record import LinkedFile, LinkedModel, LinkKind, LinkRecord
from ostore.formats.name import ModelName
from ostore.formats.plain_names import claims_of, plain_names
from ostore.formats.remedy import ostore
from ostore.formats.selection import LeftOut, OmittedModel
from ostore.formats.store_layout import MANIFESTS
from ostore.operations.show import show_model
from ostore.operations.weights import read_weights
from ostore.places.plain_files.link_folder import ForeignFileError, LinkFolder, WantedFile
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.scan import ManifestScan, StoredModel


@dataclass(frozen=True, slots=True)
class LinkedPath:
    """
    A file for other programs. `is_new` is False if it was there already.

    `kind` is symlink, reflink (a file of its own whose bytes the disk keeps once), hardlink, or text (a Modelfile).
    """

    model: str
    path: str
    kind: LinkKind
    is_new: bool


@dataclass(frozen=True, slots=True)
class ForeignPath:
    """A path that ostore has left alone, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class LinkReport:
    """
    What is in a folder of links now.

    `linked` are all files of the models that the command was about, `removed` the paths that are gone. In `left_alone`
    are the paths that something else has. A glob matched the models in `left_out`, but they have no file to link.
    `lost` are the instructions of Modelfiles that the links lose; where a Modelfile can hold them, it is beside them.
    """

    folder: str
    layout: str
    linked: tuple[LinkedPath, ...]
    removed: tuple[str, ...]
    left_alone: tuple[ForeignPath, ...]
    left_out: tuple[OmittedModel, ...]
    lost: tuple[str, ...]
    warnings: tuple[str, ...]


def link(
    names: Sequence[str], folder: str | Path, *, layout: str | None = None, models: Path | None = None
) -> LinkReport:
    """
    Link the files of models into a folder under readable names. `names` are names or globs.

    `layout` is `files` (the default of a new folder), `lmstudio` or `llama.cpp`. The disk shares the bytes if it can;
    else the links are symbolic, or on Windows hard. The same call again finishes one that was interrupted. What ostore
    has not made stays as it is.

    Raises NotFoundError, UsageError for another layout than that of the folder or a disk without links, the error of a
    model that was named and has no file (FormatError, IntegrityError), BusyError, UnsafeError or FormatError for the
    record of the folder, OSError.
    """
    if layout is not None and layout not in [*Layout]:
        raise UsageError(f"layout: expected {', '.join(Layout)}, got {layout!r}")
    place = _absolute(folder)
    with telling_permissions():
        store = chosen_store(models).require()
        chosen, left = choose_models(names, store)
        if not chosen:
            raise _nothing(left, store)
        with LinkFolder.opened(Path(folder), create=True) as links:
            work = _Work.begun(links, place, layout)
            try:
                for model in chosen:
                    work.link(model, store, work.known(model.stored.name, store.absolute))
            finally:
                work.save([store])
    return work.report(left)


def refresh_links(folder: str | Path, *, models: Path | None = None) -> LinkReport:
    """
    Link anew the models of a folder whose tags have changed, and remove the links of models that are gone.

    `models` is the store to take them from; the default is the store of each. Raises what `link` raises, and
    NotFoundError if a store or the record is not there; nothing is changed then.
    """
    with telling_permissions(), LinkFolder.opened(Path(folder)) as links:
        work = _Work.begun(_with_record(links, folder), _absolute(folder))
        stores = {known: LocalStore(models or Path(known)).require() for known in work.stores}
        scans = {known: store.scan() for known, store in stores.items()}
        try:
            for known in list(work.models.values()):
                store, scan = stores[known.store], scans[known.store]
                found = next((model for model in scan.models if model.name == known.name), None)
                if doubt := _doubt(known.name, scan):
                    work.warnings.append(f"{known.name}: its links stay as they are: {doubt}")
                elif found is None:
                    work.unlink(known)
                else:
                    work.link_again(found, store, known)
        finally:
            work.save(stores.values())
    return work.report()


def remove_links(folder: str | Path) -> LinkReport:
    """
    Remove all that ostore has made in a folder of links, and its record. Blobs stay, and so does what was changed.

    Raises NotFoundError if ostore has made nothing there, BusyError, UnsafeError or FormatError for the record,
    OSError.
    """
    with LinkFolder.opened(Path(folder)) as links:
        work = _Work.begun(_with_record(links, folder), _absolute(folder))
        try:
            for known in list(work.models.values()):
                work.unlink(known)
        except OSError:
            work.save()
            raise
        links.forget()
        work.unnote(work.before)
    return work.report()


@dataclass
class _Work:
    """
    One command on a folder of links: what is there so far, and what there is to say of it.

    `before` are the stores that the record named at first.
    """

    links: LinkFolder
    folder: Path
    layout: Layout
    models: dict[tuple[ModelName, str], LinkedModel]
    before: frozenset[str]
    linked: list[LinkedPath] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    left_alone: list[ForeignPath] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lost: dict[str, None] = field(default_factory=dict)

    @classmethod
    def begun(cls, links: LinkFolder, folder: Path, layout: str | None = None) -> _Work:
        """Raises UsageError for another layout than that of the folder."""
        record = links.record or LinkRecord(Layout(layout or Layout.FILES))
        if layout is not None and layout != record.layout:
            hint = ostore("link", "--remove", folder, before="use another folder", after="takes back what is there")
            raise UsageError(f"{folder}: has the layout {record.layout}, not {layout}", hint=hint)
        models = {(model.name, model.store): model for model in record.models}
        return cls(links, folder, record.layout, models, frozenset(store for _, store in models))

    @property
    def stores(self) -> set[str]:
        return {store for _, store in self.models}

    def known(self, name: ModelName, store: str) -> LinkedModel:
        """Return what the record says of a model."""
        return self.models.get((name, store)) or LinkedModel(name, store, ())

    def link(self, model: PlainModel, store: LocalStore, known: LinkedModel) -> None:
        """Make the files of a model, and remove those that it had and has no more."""
        name = model.stored.name
        self.models.pop((name, known.store), None)
        files = {file.path: file for file in known.files}
        place = known.store
        # An error must not lose what is there. What is left alone stays in the record too: the next refresh names it.
        try:
            wanted = list(self._wanted(model, store, files))
            for file in wanted:
                if made := self._made(file, files.get(file.path), known):
                    files[file.path] = made
            for path in files.keys() - {file.path for file in wanted}:
                self._remove(known, files[path])
                del files[path]
            place = store.absolute
        finally:
            self._keep(LinkedModel(name, place, tuple(files.values())))

    def link_again(self, found: StoredModel, store: LocalStore, known: LinkedModel) -> None:
        """Link a model as it is now. If it has no file any more, its links go."""
        try:
            model = plain_model(store, found)
        except OstoreError as error:
            self.warnings.append(str(error) if str(found.name) in str(error) else f"{found.name}: {error}")
            # A file of its own may have the only good bytes.
            kept = tuple(file for file in known.files if isinstance(error, BlobError) and file.kind != "symlink")
            self.unlink(known, keeping=kept)
        else:
            self.link(model, store, known)

    def unlink(self, known: LinkedModel, *, keeping: tuple[LinkedFile, ...] = ()) -> None:
        """Remove the files of a model."""
        files = list(known.files)
        try:
            for file in known.files:
                if file not in keeping:
                    self._remove(known, file)
                    files.remove(file)
        finally:
            del self.models[known.name, known.store]
            self._keep(LinkedModel(known.name, known.store, tuple(files)))

    def save(self, stores: Iterable[LocalStore] = ()) -> None:
        """Write the record, and let these stores and those that have no links any more know of it."""
        self.links.save(LinkRecord(self.layout, tuple(sorted(self.models.values(), key=_order))))
        self.note(stores)
        self.unnote(self.before - self.stores)

    def note(self, stores: Iterable[LocalStore]) -> None:
        """Let the stores know of this folder. A store that we may not write to does not, which is no failure."""
        for store in stores:
            try:
                store.note_folder(str(self.folder), has_links=store.absolute in self.stores)
            except (OstoreError, OSError) as error:
                reason = (isinstance(error, OSError) and error.strerror) or error
                what = f"{store.root}: cannot remember this folder ({reason})"
                self.warnings.append(f"{what}, so rm will not say that it breaks links here")

    def unnote(self, stores: Iterable[str]) -> None:
        """Let stores know that this folder has no links to them any more. They may be gone."""
        for store in stores:
            with contextlib.suppress(OstoreError, OSError):
                LocalStore(Path(store)).note_folder(str(self.folder), has_links=False)

    def report(self, left: Sequence[LeftOut] = ()) -> LinkReport:
        return LinkReport(
            folder=str(self.folder),
            layout=self.layout.value,
            linked=tuple(self.linked),
            removed=tuple(sorted(self.removed)),
            left_alone=tuple(self.left_alone),
            left_out=tuple(one.told for one in left),
            lost=tuple(self.lost),
            warnings=tuple(self.warnings),
        )

    def _wanted(self, model: PlainModel, store: LocalStore, present: Collection[str]) -> Iterator[WantedFile]:
        parts, name = model.parts, model.stored.name
        taken = {claim for other in self.models.values() for file in other.files for claim in claims_of(file.path)}
        counts = len(parts.projectors), len(parts.adapters), len(parts.drafts)
        names = plain_names(name, self.layout, counts, taken, salt=store.absolute, present=present)
        paths = names.paths_of(parts)
        for part, path in paths.items():
            yield WantedFile(path, part.digest, part.size, store.files.path_of(part))
        if hidden := names.without_place(parts):
            self.warnings.append(f"{name}: not linked, as the program would take it for the model: {', '.join(hidden)}")
        weights = None
        try:
            shown = show_model(store, model.stored)
            weights = weights_of(shown)
            losses = lost(shown)
            self.lost |= dict.fromkeys(losses)
            text = modelfile_of(shown, sources(model, paths)).encode() if losses else b""
        except OstoreError as error:
            reason = str(error).removeprefix(f"{name}: ")
            self.warnings.append(f"{name}: no Modelfile is written beside it: {reason}")
        else:
            if text:
                yield WantedFile(names.modelfile, Digest.of(text), len(text), content=text)
        if warning := weights_warning(name, weights or read_weights(store, parts.weights)[0]):
            self.warnings.append(warning)

    def _made(self, file: WantedFile, before: LinkedFile | None, known: LinkedModel) -> LinkedFile | None:
        """Make a file, or leave alone what has its name."""
        try:
            made = self.links.put(file, before, known.store)
        except ForeignFileError as error:
            self.left_alone.append(ForeignPath(self._path(file.path), str(error)))
            return None
        self.linked.append(LinkedPath(str(known.name), self._path(file.path), made.kind, is_new=made != before))
        return made

    def _remove(self, known: LinkedModel, file: LinkedFile) -> None:
        try:
            if self.links.remove(file, known.store):
                self.removed.append(self._path(file.path))
        except ForeignFileError as error:
            self.left_alone.append(ForeignPath(self._path(file.path), str(error)))

    def _keep(self, model: LinkedModel) -> None:
        if model.files:
            self.models[model.name, model.store] = model

    def _path(self, path: str) -> str:
        return os.path.join(self.folder, *path.split("/"))  # noqa: PTH118 - as text


def _order(model: LinkedModel) -> tuple[str, str]:
    return model.name.full, model.store


def _absolute(folder: str | Path) -> Path:
    """Return the absolute path of a folder. Raises UsageError for one that no JSON document can hold."""
    path = Path(folder).absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{path}: its path is no text, so no record can name it") from None
    return path


def _with_record(links: LinkFolder, folder: str | Path) -> LinkFolder:
    if links.record is None:
        raise NotFoundError(f"{folder}: ostore has linked nothing here")
    return links


def _doubt(name: ModelName, scan: ManifestScan) -> str | None:
    """Return why nobody can tell whether a model is there, or None."""
    unread = [entry.reason for entry in scan.unreadable if entry.name == name]
    path = f"{MANIFESTS}/{'/'.join(name.parts)}/"
    unread += [closed.reason for closed in scan.tree.closed if path.startswith(f"{closed.path}/")]
    return unread[0] if unread else None


def _nothing(left: Sequence[LeftOut], store: LocalStore) -> OstoreError | OSError:
    return left[0].error if left else store.no_models()
