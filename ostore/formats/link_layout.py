"""How files can lie in a folder of links; in a module of its own, so that the command line loads nothing else."""

from __future__ import annotations

from enum import StrEnum


class Layout(StrEnum):
    """How the files of models lie in a folder."""

    FILES = "files"
    LM_STUDIO = "lmstudio"
    LLAMA_CPP = "llama.cpp"
