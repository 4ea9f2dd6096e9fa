"""
Manage Ollama model stores offline and carry models across an air gap: the library of the command `ostore`.

>>> import ostore
>>> report = ostore.export(["llama3"], "bundle.tar.zst")
>>> report = ostore.import_bundle("bundle.tar.zst")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.formats.version import VERSION as __version__

if TYPE_CHECKING:
    from ostore.api.cp import CpReport, cp
    from ostore.api.create import CreatedLayer, CreateReport, create
    from ostore.api.dedup import DedupReport, DuplicateBlob, DuplicateCopy, ForeignModel, SearchedFolder, dedup
    from ostore.api.diff import DifferingModel, DiffReport, LackingBlob, diff
    from ostore.api.doctor import DoctorReport, doctor, fix
    from ostore.api.du import UsageReport, du
    from ostore.api.export import ExportedParity, ExportedVolume, ExportReport, export
    from ostore.api.export_gguf import GgufExportReport, PlainFile, export_gguf
    from ostore.api.export_image import ImageExportReport, export_image
    from ostore.api.gc import (
        GcReport,
        JudgedBlob,
        KeptDownload,
        RemovedDownload,
        RestoredBlob,
        RestoreReport,
        gc,
        restore,
    )
    from ostore.api.import_bundle import ImportedModel, ImportReport, Resend, ResentModel, UsedParity, import_bundle
    from ostore.api.inspect_bundle import BundledModel, InspectReport, inspect
    from ostore.api.inventory import InventoryReport, inventory
    from ostore.api.link import ForeignPath, LinkedPath, LinkReport, link, refresh_links, remove_links
    from ostore.api.list_models import ListReport, StoreElsewhere, list_models
    from ostore.api.lock import ChangedLock, LockReport, lock
    from ostore.api.modelfile import modelfile
    from ostore.api.move.check import MoveCheckReport, StoreSetting, check_move
    from ostore.api.move.move import move
    from ostore.api.move.report import MovedModel, MoveReport
    from ostore.api.outdated import OutdatedModel, OutdatedReport, outdated
    from ostore.api.path import PathPart, PathReport, path
    from ostore.api.probe import ProbedModel, ProbeReport, probe
    from ostore.api.probe_answers import SpokenWord
    from ostore.api.pull import PulledModel, PullReport, pull
    from ostore.api.push import PushedModel, PushReport, push
    from ostore.api.repair.repair import repair
    from ostore.api.repair.report import Repaired, RepairReport
    from ostore.api.rm import RemovedBlob, RmReport, rm
    from ostore.api.serve import ServeReport, ServeStart, serve
    from ostore.api.show import show, show_part
    from ostore.api.sync.sync import SyncedModel, SyncReport, sync
    from ostore.api.verify import verify
    from ostore.api.volumes import VolumesAt
    from ostore.api.where import WhereReport, where
    from ostore.formats.errors import (
        AmbiguousManifestError,
        BasisMissingError,
        BlobError,
        BlobMissingError,
        BusyError,
        DamagedStoreError,
        DigestMismatchError,
        ForeignManifestError,
        FormatError,
        IntegrityError,
        InUseError,
        InvalidBundleError,
        InvalidDigestError,
        InvalidManifestError,
        InvalidNameError,
        LimitError,
        NoSpaceError,
        NotFoundError,
        OstoreError,
        RemoteError,
        SizeMismatchError,
        TruncatedError,
        UnsafeError,
        UsageError,
        VolumesError,
    )
    from ostore.formats.remedy import Remedy
    from ostore.formats.unreadable import Unreadable
    from ostore.host.discovery import FoundStore
    from ostore.operations.doctor.finding import Finding
    from ostore.operations.listing import ListedModel
    from ostore.operations.move import LeftEntry
    from ostore.operations.show import Message, Parameter, ShownLayer, ShownModel
    from ostore.operations.usage import ModelUsage, SharedBlobs, Space, UsagePart
    from ostore.operations.verify import Problem, VerifyReport
    from ostore.operations.weights import ShownKey, ShownTensor, ShownWeights
    from ostore.places.store.fixing import Fix
    from ostore.streams.progress import Progress

__all__ = [
    "AmbiguousManifestError",
    "BasisMissingError",
    "BlobError",
    "BlobMissingError",
    "BundledModel",
    "BusyError",
    "ChangedLock",
    "CpReport",
    "CreateReport",
    "CreatedLayer",
    "DamagedStoreError",
    "DedupReport",
    "DiffReport",
    "DifferingModel",
    "DigestMismatchError",
    "DoctorReport",
    "DuplicateBlob",
    "DuplicateCopy",
    "ExportReport",
    "ExportedParity",
    "ExportedVolume",
    "Finding",
    "Fix",
    "ForeignManifestError",
    "ForeignModel",
    "ForeignPath",
    "FormatError",
    "FoundStore",
    "GcReport",
    "GgufExportReport",
    "ImageExportReport",
    "ImportReport",
    "ImportedModel",
    "InUseError",
    "InspectReport",
    "IntegrityError",
    "InvalidBundleError",
    "InvalidDigestError",
    "InvalidManifestError",
    "InvalidNameError",
    "InventoryReport",
    "JudgedBlob",
    "KeptDownload",
    "LackingBlob",
    "LeftEntry",
    "LimitError",
    "LinkReport",
    "LinkedPath",
    "ListReport",
    "ListedModel",
    "LockReport",
    "Message",
    "ModelUsage",
    "MoveCheckReport",
    "MoveReport",
    "MovedModel",
    "NoSpaceError",
    "NotFoundError",
    "OstoreError",
    "OutdatedModel",
    "OutdatedReport",
    "Parameter",
    "PathPart",
    "PathReport",
    "PlainFile",
    "ProbeReport",
    "ProbedModel",
    "Problem",
    "Progress",
    "PullReport",
    "PulledModel",
    "PushReport",
    "PushedModel",
    "Remedy",
    "RemoteError",
    "RemovedBlob",
    "RemovedDownload",
    "RepairReport",
    "Repaired",
    "Resend",
    "ResentModel",
    "RestoreReport",
    "RestoredBlob",
    "RmReport",
    "SearchedFolder",
    "ServeReport",
    "ServeStart",
    "SharedBlobs",
    "ShownKey",
    "ShownLayer",
    "ShownModel",
    "ShownTensor",
    "ShownWeights",
    "SizeMismatchError",
    "Space",
    "SpokenWord",
    "StoreElsewhere",
    "StoreSetting",
    "SyncReport",
    "SyncedModel",
    "TruncatedError",
    "Unreadable",
    "UnsafeError",
    "UsageError",
    "UsagePart",
    "UsageReport",
    "UsedParity",
    "VerifyReport",
    "VolumesAt",
    "VolumesError",
    "WhereReport",
    "__version__",
    "check_move",
    "cp",
    "create",
    "dedup",
    "diff",
    "doctor",
    "du",
    "export",
    "export_gguf",
    "export_image",
    "fix",
    "gc",
    "import_bundle",
    "inspect",
    "inventory",
    "link",
    "list_models",
    "lock",
    "modelfile",
    "move",
    "outdated",
    "path",
    "probe",
    "pull",
    "push",
    "refresh_links",
    "remove_links",
    "repair",
    "restore",
    "rm",
    "serve",
    "show",
    "show_part",
    "sync",
    "verify",
    "where",
]

# The module that defines each name.
_HOMES = {
    "AmbiguousManifestError": "ostore.formats.errors",
    "BasisMissingError": "ostore.formats.errors",
    "BlobError": "ostore.formats.errors",
    "BlobMissingError": "ostore.formats.errors",
    "BundledModel": "ostore.api.inspect_bundle",
    "BusyError": "ostore.formats.errors",
    "ChangedLock": "ostore.api.lock",
    "CpReport": "ostore.api.cp",
    "CreateReport": "ostore.api.create",
    "CreatedLayer": "ostore.api.create",
    "DamagedStoreError": "ostore.formats.errors",
    "DedupReport": "ostore.api.dedup",
    "DiffReport": "ostore.api.diff",
    "DifferingModel": "ostore.api.diff",
    "DigestMismatchError": "ostore.formats.errors",
    "DoctorReport": "ostore.api.doctor",
    "DuplicateBlob": "ostore.api.dedup",
    "DuplicateCopy": "ostore.api.dedup",
    "ExportReport": "ostore.api.export",
    "ExportedParity": "ostore.api.export",
    "ExportedVolume": "ostore.api.export",
    "Finding": "ostore.operations.doctor.finding",
    "Fix": "ostore.places.store.fixing",
    "ForeignManifestError": "ostore.formats.errors",
    "ForeignModel": "ostore.api.dedup",
    "ForeignPath": "ostore.api.link",
    "FormatError": "ostore.formats.errors",
    "FoundStore": "ostore.host.discovery",
    "GcReport": "ostore.api.gc",
    "GgufExportReport": "ostore.api.export_gguf",
    "ImageExportReport": "ostore.api.export_image",
    "ImportReport": "ostore.api.import_bundle",
    "ImportedModel": "ostore.api.import_bundle",
    "InUseError": "ostore.formats.errors",
    "InspectReport": "ostore.api.inspect_bundle",
    "IntegrityError": "ostore.formats.errors",
    "InvalidBundleError": "ostore.formats.errors",
    "InvalidDigestError": "ostore.formats.errors",
    "InvalidManifestError": "ostore.formats.errors",
    "InvalidNameError": "ostore.formats.errors",
    "InventoryReport": "ostore.api.inventory",
    "JudgedBlob": "ostore.api.gc",
    "KeptDownload": "ostore.api.gc",
    "LackingBlob": "ostore.api.diff",
    "LeftEntry": "ostore.operations.move",
    "LimitError": "ostore.formats.errors",
    "LinkReport": "ostore.api.link",
    "LinkedPath": "ostore.api.link",
    "ListReport": "ostore.api.list_models",
    "ListedModel": "ostore.operations.listing",
    "LockReport": "ostore.api.lock",
    "Message": "ostore.operations.show",
    "ModelUsage": "ostore.operations.usage",
    "MoveCheckReport": "ostore.api.move.check",
    "MoveReport": "ostore.api.move.report",
    "MovedModel": "ostore.api.move.report",
    "NoSpaceError": "ostore.formats.errors",
    "NotFoundError": "ostore.formats.errors",
    "OstoreError": "ostore.formats.errors",
    "OutdatedModel": "ostore.api.outdated",
    "OutdatedReport": "ostore.api.outdated",
    "Parameter": "ostore.operations.show",
    "PathPart": "ostore.api.path",
    "PathReport": "ostore.api.path",
    "PlainFile": "ostore.api.export_gguf",
    "ProbeReport": "ostore.api.probe",
    "ProbedModel": "ostore.api.probe",
    "Problem": "ostore.operations.verify",
    "Progress": "ostore.streams.progress",
    "PullReport": "ostore.api.pull",
    "PulledModel": "ostore.api.pull",
    "PushReport": "ostore.api.push",
    "PushedModel": "ostore.api.push",
    "Remedy": "ostore.formats.remedy",
    "RemoteError": "ostore.formats.errors",
    "RemovedBlob": "ostore.api.rm",
    "RemovedDownload": "ostore.api.gc",
    "RepairReport": "ostore.api.repair.report",
    "Repaired": "ostore.api.repair.report",
    "Resend": "ostore.api.import_bundle",
    "ResentModel": "ostore.api.import_bundle",
    "RestoreReport": "ostore.api.gc",
    "RestoredBlob": "ostore.api.gc",
    "RmReport": "ostore.api.rm",
    "SearchedFolder": "ostore.api.dedup",
    "ServeReport": "ostore.api.serve",
    "ServeStart": "ostore.api.serve",
    "SharedBlobs": "ostore.operations.usage",
    "ShownKey": "ostore.operations.weights",
    "ShownLayer": "ostore.operations.show",
    "ShownModel": "ostore.operations.show",
    "ShownTensor": "ostore.operations.weights",
    "ShownWeights": "ostore.operations.weights",
    "SizeMismatchError": "ostore.formats.errors",
    "Space": "ostore.operations.usage",
    "SpokenWord": "ostore.api.probe_answers",
    "StoreElsewhere": "ostore.api.list_models",
    "StoreSetting": "ostore.api.move.check",
    "SyncReport": "ostore.api.sync.sync",
    "SyncedModel": "ostore.api.sync.sync",
    "TruncatedError": "ostore.formats.errors",
    "Unreadable": "ostore.formats.unreadable",
    "UnsafeError": "ostore.formats.errors",
    "UsageError": "ostore.formats.errors",
    "UsagePart": "ostore.operations.usage",
    "UsageReport": "ostore.api.du",
    "UsedParity": "ostore.api.import_bundle",
    "VerifyReport": "ostore.operations.verify",
    "VolumesAt": "ostore.api.volumes",
    "VolumesError": "ostore.formats.errors",
    "WhereReport": "ostore.api.where",
    "check_move": "ostore.api.move.check",
    "cp": "ostore.api.cp",
    "create": "ostore.api.create",
    "dedup": "ostore.api.dedup",
    "diff": "ostore.api.diff",
    "doctor": "ostore.api.doctor",
    "du": "ostore.api.du",
    "export": "ostore.api.export",
    "export_gguf": "ostore.api.export_gguf",
    "export_image": "ostore.api.export_image",
    "fix": "ostore.api.doctor",
    "gc": "ostore.api.gc",
    "import_bundle": "ostore.api.import_bundle",
    "inspect": "ostore.api.inspect_bundle",
    "inventory": "ostore.api.inventory",
    "link": "ostore.api.link",
    "list_models": "ostore.api.list_models",
    "lock": "ostore.api.lock",
    "modelfile": "ostore.api.modelfile",
    "move": "ostore.api.move.move",
    "outdated": "ostore.api.outdated",
    "path": "ostore.api.path",
    "probe": "ostore.api.probe",
    "pull": "ostore.api.pull",
    "push": "ostore.api.push",
    "refresh_links": "ostore.api.link",
    "remove_links": "ostore.api.link",
    "repair": "ostore.api.repair.repair",
    "restore": "ostore.api.gc",
    "rm": "ostore.api.rm",
    "serve": "ostore.api.serve",
    "show": "ostore.api.show",
    "show_part": "ostore.api.show",
    "sync": "ostore.api.sync.sync",
    "verify": "ostore.api.verify",
    "where": "ostore.api.where",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that `ostore --version` does not wait for zstd."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
