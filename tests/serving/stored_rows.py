"""What upgrades are tried with: for each revision of the schema, rows that it must keep.

They are inserted once that revision is reached, in the shape that the tables then have, and must
be there after every later one: all columns that still exist, with the same values.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
WHEN = "2026-01-02 03:04:05.000000"
ROUTER = "0c5b1b7a6b3c4c0e9d6f1a2b3c4d5e6f"
DECISION = "0198c0ffee0070008000000000000001"

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
    "0003": {
        "decisions": [
            {
                "id": DECISION,
                "created_at": WHEN,
                "trace_id": "0" * 31 + "1",
                "endpoint": "/v1/chat/completions",
                "router": "work",
                "router_revision": 2,
                "stream": False,
                "routes": ["coding"],
                "distribution": {"coding": 0.75, "none": 0.25},
                "confidence": 0.75,
                "status": 200,
                "total_ms": 12.5,
                "cost": 0.001,
            }
        ],
        "attempts": [
            {
                "decision_id": DECISION,
                "number": 1,
                "model": "p/code-1",
                "result": "ok",
                "asked": True,
            }
        ],
        "decision_texts": [
            {"decision_id": DECISION, "messages": [{"role": "user", "content": "Größe?"}]}
        ],
        "decision_feedback": [{"decision_id": DECISION, "route": None, "created_at": WHEN}],
    },
}
"""By revision and table; a revision that makes no table has `{}`."""
