"""Find the store of a command, and refuse a command that has nothing to work on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ostore.formats.errors import NotFoundError
from ostore.formats.remedy import Remedy, command, ostore
from ostore.formats.selection import Selection
from ostore.host.discovery import doubts_of_choice
from ostore.operations.transfer import Source
from ostore.places.store.store import LocalStore
from ostore.settings import choose_store, surroundings

# What notes on a layout say of images.
_IMAGE_LAYER = "application/vnd.oci.image.layer."


def chosen_store(models: Path | None) -> LocalStore:
    """
    Return the store at `models`, or else the store that `where` finds. It need not exist.

    Raises NotFoundError if no store is named and there is no home folder, or if nothing is where OLLAMA_MODELS points
    and that has a spelling that nobody means; UsageError if Ollama cannot use the path.
    """
    choice = choose_store(models)
    if not choice.path.exists():
        for doubt in doubts_of_choice(surroundings(), choice):
            raise NotFoundError(f"{choice.path}: no such store", hint=doubt)
    return LocalStore(choice.path)


def refuse_nothing(selection: Selection, source: Source, label: object, *, strict: bool) -> None:
    """Raise the worst error of what is left out if `strict` or if all is. Raises NotFoundError if there is nothing."""
    selection.refuse_left(strict=strict)
    if not selection.models:
        if isinstance(source, LocalStore):
            raise source.no_models()
        if image := _image_in(source, selection):
            raise NotFoundError(f"no models in {label}, but a container image", hint=image)
        raise NotFoundError(f"no models in {label}", hint=ostore("inspect", label, after="shows what it holds"))


def _image_in(source: Source, selection: Selection) -> Remedy | None:
    """Return how to take the store out of the image in a layout, or None if there is none."""
    if not any(_IMAGE_LAYER in note for note in selection.notes):
        return None
    from ostore.places.oci_layout.folder import LayoutFolder
    from ostore.places.oci_layout.layout import OciLayout

    if not isinstance(source, OciLayout):
        return None
    entries = LayoutFolder(source.path, source.label).read_index().entries
    name = next((entry.text for entry in entries if entry.text), "")
    folder = f"{source.path.name}-unpacked"
    unpack = command("umoci", "unpack", "--rootless", "--image", f"{source.path}:{name}", folder)
    add = ostore("import", Path(folder) / "rootfs/models", after="takes the store out of it, if that is in /models")
    return replace(unpack.then(add), after=add.after)
