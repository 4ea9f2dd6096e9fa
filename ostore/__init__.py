"""
Carry Ollama models across an air gap, verified: the library behind the command `ostore`.

>>> import ostore
>>> report = ostore.export(["llama3"], "bundle.tar.zst")
>>> report = ostore.import_bundle("bundle.tar.zst")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.formats.version import VERSION as __version__

if TYPE_CHECKING:
    from ostore.api.carrying import export, import_bundle, verify
    from ostore.api.checkup import doctor, fix
    from ostore.api.collecting import gc, restore
    from ostore.api.findings import DoctorReport
    from ostore.api.health import repair
    from ostore.api.looking import inspect, list_models, modelfile, show, where
    from ostore.api.moving import move
    from ostore.api.outcomes import (
        CpReport,
        GcReport,
        JudgedBlob,
        RemovedBlob,
        RemovedDownload,
        RestoredBlob,
        RestoreReport,
        RmReport,
    )
    from ostore.api.removal import cp, rm
    from ostore.api.resettling import check_move
    from ostore.api.sharing import DedupReport, DuplicateBlob, DuplicateCopy, SearchedFolder, dedup
    from ostore.api.usage import UsageReport, du
    from ostore.formats.errors import (
        AmbiguousManifestError,
        BlobError,
        BlobMissingError,
        BusyError,
        DamagedStoreError,
        DigestMismatchError,
        FormatError,
        IntegrityError,
        InvalidBundleError,
        InvalidDigestError,
        InvalidManifestError,
        InvalidNameError,
        LimitError,
        NoSpaceError,
        NotFoundError,
        OstoreError,
        SizeMismatchError,
        TruncatedError,
        UnsafeError,
        UsageError,
    )
    from ostore.formats.unreadable import Unreadable
    from ostore.host.discovery import FoundStore
    from ostore.operations.doctor.finding import Finding
    from ostore.operations.listing import ListedModel, Message, Parameter, ShownLayer, ShownModel
    from ostore.operations.moving import LeftEntry, MoveCheckReport, MovedModel, MoveReport, StoreSetting
    from ostore.operations.repair import Repaired, RepairReport
    from ostore.operations.usage import ModelUsage, SharedBlobs, Space, UsagePart
    from ostore.operations.verify import Problem, VerifyReport
    from ostore.places.store.fixing import Fix
    from ostore.reports import (
        BundledModel,
        ExportReport,
        ImportedModel,
        ImportReport,
        InspectReport,
        ListReport,
        WhereReport,
    )
    from ostore.streams.progress import Progress

__all__ = [
    "AmbiguousManifestError",
    "BlobError",
    "BlobMissingError",
    "BundledModel",
    "BusyError",
    "CpReport",
    "DamagedStoreError",
    "DedupReport",
    "DigestMismatchError",
    "DoctorReport",
    "DuplicateBlob",
    "DuplicateCopy",
    "ExportReport",
    "Finding",
    "Fix",
    "FormatError",
    "FoundStore",
    "GcReport",
    "ImportReport",
    "ImportedModel",
    "InspectReport",
    "IntegrityError",
    "InvalidBundleError",
    "InvalidDigestError",
    "InvalidManifestError",
    "InvalidNameError",
    "JudgedBlob",
    "LeftEntry",
    "LimitError",
    "ListReport",
    "ListedModel",
    "Message",
    "ModelUsage",
    "MoveCheckReport",
    "MoveReport",
    "MovedModel",
    "NoSpaceError",
    "NotFoundError",
    "OstoreError",
    "Parameter",
    "Problem",
    "Progress",
    "RemovedBlob",
    "RemovedDownload",
    "RepairReport",
    "Repaired",
    "RestoreReport",
    "RestoredBlob",
    "RmReport",
    "SearchedFolder",
    "SharedBlobs",
    "ShownLayer",
    "ShownModel",
    "SizeMismatchError",
    "Space",
    "StoreSetting",
    "TruncatedError",
    "Unreadable",
    "UnsafeError",
    "UsageError",
    "UsagePart",
    "UsageReport",
    "VerifyReport",
    "WhereReport",
    "__version__",
    "check_move",
    "cp",
    "dedup",
    "doctor",
    "du",
    "export",
    "fix",
    "gc",
    "import_bundle",
    "inspect",
    "list_models",
    "modelfile",
    "move",
    "repair",
    "restore",
    "rm",
    "show",
    "verify",
    "where",
]


def __getattr__(name: str) -> object:
    """Import what is asked for when it is: `ostore --version` should not wait for zstd."""
    import importlib

    for module in (
        "ostore.formats.errors",
        "ostore.formats.unreadable",
        "ostore.streams.progress",
        "ostore.reports",
        "ostore.api.looking",
        "ostore.api.carrying",
        "ostore.api.health",
        "ostore.api.sharing",
        "ostore.api.usage",
        "ostore.api.checkup",
        "ostore.api.moving",
        "ostore.api.resettling",
        "ostore.api.collecting",
        "ostore.api.removal",
        "ostore.operations.listing",
        "ostore.operations.repair",
        "ostore.operations.usage",
        "ostore.operations.moving",
        "ostore.operations.verify",
        "ostore.api.findings",
        "ostore.api.outcomes",
    ):
        if name in __all__ and hasattr(home := importlib.import_module(module), name):
            return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
