"""The table of hostile inputs. A row's name begins with its part (A container to J layouts) and number."""

from __future__ import annotations

from tests.hostile.carried import carried_rows
from tests.hostile.container import container_rows
from tests.hostile.creating import creating_rows
from tests.hostile.documents import document_rows
from tests.hostile.folders import folder_rows
from tests.hostile.layouts import layout_rows
from tests.hostile.names import name_rows
from tests.hostile.recipes import recipe_rows
from tests.hostile.surroundings import surrounding_rows
from tests.hostile.upkeep import upkeep_rows
from tests.hostile.volumes import volume_rows

ROWS = (
    *container_rows(),
    *document_rows(),
    *recipe_rows(),
    *name_rows(),
    *creating_rows(),
    *surrounding_rows(),
    *upkeep_rows(),
    *folder_rows(),
    *layout_rows(),
    *volume_rows(),
    *carried_rows(),
)
