"""What upgrades are tried with: for each revision of the schema, rows that it must keep.

They are inserted once that revision is reached, in the shape that the tables then have, and must
be there after every later one: all columns that still exist, with the same values.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
WHEN = "2026-01-02 03:04:05.000000"
ROUTER = "0c5b1b7a6b3c4c0e9d6f1a2b3c4d5e6f"

ROWS: dict[str, dict[str, list[Row]]] = {
    "0001": {
        "routers": [
            {
                "id": ROUTER,
                "name": "work",
                "revision": 2,
                "change": 2,
                "created_at": WHEN,
                "updated_at": WHEN,
                "deleted_at": None,
            }
        ],
        "router_revisions": [
            {
                "id": number,
                "router_id": ROUTER,
                "number": number,
                "definition": {"name": "work", "description": f"nº {number} \u0000"},
                "created_at": WHEN,
                "author": None,
                "note": None,
            }
            for number in (1, 2)
        ],
    },
}
"""By revision and table; a revision that makes no table has `{}`."""
