"""What upgrades are tried with: for each revision of the schema, rows that it must keep.

They are inserted once that revision is reached, in the shape that the tables then have, and must
be there after every later one: all columns that still exist, with the same values.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
WHEN = "2026-01-02 03:04:05.000000"
KEY = "11111111-2222-3333-4444-555555555555"
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
    "0002": {
        "api_keys": [
            {
                "id": KEY,
                "name": "a key",
                "tenant": "one",
                "role": "caller",
                "requests_per_minute": None,
                "tokens_per_minute": 1000,
                "monthly_budget": 12.5,
                "created_at": 1_770_000_000,
                "expires_at": None,
                "revoked_at": None,
            }
        ],
        "api_key_secrets": [
            {
                "digest": bytes(range(32)),
                "key_id": KEY,
                "hashed_with": "01234567",
                "last_characters": "wxyz",
                "created_at": 1_770_000_000,
                "expires_at": 1_770_000_060,
            }
        ],
        "key_usage": [
            {
                "key_id": KEY,
                "month": "2026-02",
                "writer": "0" * 32,
                "dollars": 0.1,
                "requests": 2**40,
                "input_tokens": 5,
                "output_tokens": 6,
                "estimated": 1,
                "unpriced": 0,
            }
        ],
        "provider_keys": [
            {
                "provider": "openai",
                "ciphertext": b"\x00\xff",
                "origin": "https://api.openai.com:443",
                "created_at": 1_770_000_000,
            }
        ],
    },
}
"""By revision and table; a revision that makes no table has `{}`."""
