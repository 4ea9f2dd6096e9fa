"""Look at several sources before anything is imported, and give each its part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ostore.api.addresses import opened_source
from ostore.api.locked import Lock, digests_of
from ostore.api.typed import is_place, means_name, refuse_empty_word, typed_models_of, words_of
from ostore.api.volumes import Word, gathered
from ostore.formats.errors import NotFoundError, UsageError, VolumesError
from ostore.formats.remedy import Remedy, ostore
from ostore.operations.transfer import Source
from ostore.places.store.store import LocalStore
from ostore.settings import choose_store, threads

# A source, the part of the names that is for it, and the lock that it is held against.
PlannedImport = tuple[Word, list[str], str | Path | None]


def planned_imports(
    sources: Sequence[Word],
    names: Sequence[str] = (),
    *,
    lock: str | Path | None = None,
    jobs: int | None = None,
    models: Path | None = None,
) -> list[PlannedImport]:
    """
    Look at several sources before anything is imported. Return those that are needed, each with its part of `names`,
    and the lock if `import_bundle` has to hold the source against it: several are held against it together, here.

    Volumes of one bundle become one source. A folder without a store is where volumes of the others are looked for.
    Each name has to be in one of the sources, not in each; with a `lock`, so does each of its models that the store
    does not have. What is on standard input cannot be known before. Raises TypeError, NotFoundError, UsageError, the
    errors of a bad bundle, OSError.
    """
    wanted = words_of(names)
    for source in sources:
        refuse_empty_word(str(source))
    sources = gathered(sources)
    if len(sources) < 2:  # noqa: PLR2004 - one source is looked at when it is imported
        return [(source, wanted, lock) for source in sources]
    if lock is not None:
        store = LocalStore(choose_store(models).path)
        planned = _planned_by(Lock.read(lock), sources, wanted, store, jobs=threads(jobs))
    else:
        planned = _planned_of(sources, wanted, jobs=threads(jobs))
    return [(source, here, None) for source, here in planned]


def _planned_of(sources: Sequence[Word], wanted: list[str], *, jobs: int) -> list[tuple[Word, list[str]]]:
    """Return the sources that have one of the models wanted, each with those."""
    found, missing = _seen(sources, wanted, jobs=jobs)
    if missing:
        word, first = missing[0]
        first.hint = _model_in(word, [source for source, _ in found], jobs=jobs) or first.hint
        raise first
    taken = {name for _, here in found for name in here}
    for name in wanted:
        if name not in taken:
            hint = ostore("inspect", sources[0], after="shows what the first of them holds")
            raise NotFoundError(f"no model {name!r} in any of the {len(sources)} sources", hint=hint)
    return found


def _seen(
    sources: Sequence[Word], wanted: list[str], *, jobs: int
) -> tuple[list[tuple[Word, list[str]]], list[tuple[str, NotFoundError]]]:
    """Return the sources that are needed, each with its part of the names, and the errors of those that are absent."""
    found: list[tuple[Word, list[str]]] = []
    missing: list[tuple[str, NotFoundError]] = []
    for source in sources:
        if str(source) == "-":
            found.append((source, wanted))
            continue
        try:
            with opened_source(source, jobs=jobs) as bundle:
                here = [name for name in wanted if _has(bundle, name)]
        except NotFoundError as error:
            missing.append((str(source), error))
        except VolumesError:
            # The import may be able to repair it.
            found.append((source, wanted))
        else:
            found += [(source, here)] if here or not wanted else []
    return found, missing


def _planned_by(
    lock: Lock, sources: Sequence[Word], names: Sequence[str], store: LocalStore, *, jobs: int
) -> list[tuple[Word, list[str]]]:
    """Return the sources that have models of a lock, each with those. The lock holds for all of them together."""
    if "-" in map(str, sources):
        raise UsageError(
            "-: with a lock, standard input is the only source", hint="import it with a command of its own"
        )
    selections = []
    for source in sources:
        with opened_source(source, jobs=jobs) as bundle:
            here = [name for name in names if _has(bundle, name)]
            selections.append(bundle.select(typed_models_of(here, bundle)).models if here or not names else ())
    chosen = [model for models in selections for model in models]
    if names:
        lock = lock.restricted(model.name for model in chosen)
    for models in selections:
        lock.refuse_others({**lock.find_in(store), **digests_of(chosen), **digests_of(models)}, "the sources")
    planned = [[model.name.full for model in models if model.name.folded in lock.file.digests] for models in selections]
    return [(source, here) for source, here in zip(sources, planned, strict=True) if here]


def _has(bundle: Source, name: str) -> bool:
    try:
        bundle.select(typed_models_of([name], bundle))
    except NotFoundError:
        return False
    return True


def _model_in(word: str, others: Sequence[Word], *, jobs: int) -> Remedy | None:
    """Return what to type if the word of a source that is not there is the name of a model in another source."""
    if is_place(word) or not means_name(word):
        return None
    for other in others:
        if str(other) != "-":
            with opened_source(other, jobs=jobs) as bundle:
                if _has(bundle, word):
                    return ostore("import", other, "--model", word, before="for one model")
    return None
