"""Who may call the server."""

from __future__ import annotations

from typing import Literal

from serving.config_base import EnvName, Seconds, Strict


class AccessConfig(Strict):
    """Keys of callers and of providers, and who needs none."""

    keyless: Literal["loopback", "anywhere", "never"] = "loopback"
    """Who is served without a key: callers on this machine, while the server listens on a loopback
    address alone; anyone, for a server behind a proxy that has asked them for one; or nobody."""
    metrics: Literal["key", "open"] = "key"
    """Whether `/metrics` asks for an admin's key where keys are asked for at all."""
    key_secret_env: EnvName = "POINTSMAN_KEY_SECRET"  # noqa: S105
    """Variable of the secret that keys are hashed with; several, by commas: the first hashes new
    keys. While it is unset and the database is a SQLite file, a secret is made beside that file."""
    encryption_keys_env: EnvName = "POINTSMAN_ENCRYPTION_KEYS"
    """Variable of the Fernet keys that stored provider keys are encrypted with, by commas: the
    first encrypts. Unset, providers' keys come from the environment alone."""
    redis_url_env: EnvName = "POINTSMAN_REDIS_URL"
    """Variable of a Redis in which replicas share their rate limits; unset, each has its own."""
    refresh_s: Seconds = 1
    """Between two looks into the database: at keys that other replicas changed, at what was spent
    there; and between two writes of what was spent here."""
    unknown_prices: Literal["allow", "refuse"] = "allow"
    """Whether a key with a budget may use models whose price nobody knows: such answers are
    counted, and cost it nothing."""
