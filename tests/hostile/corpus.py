"""The table of hostile inputs. Each row's name begins with its number in the list of the safety document."""

from __future__ import annotations

from tests.hostile.container import container_rows
from tests.hostile.documents import document_rows
from tests.hostile.names import name_rows
from tests.hostile.surroundings import surrounding_rows
from tests.hostile.upkeep import upkeep_rows

ROWS = (*container_rows(), *document_rows(), *name_rows(), *surrounding_rows(), *upkeep_rows())
