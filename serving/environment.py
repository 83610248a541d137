"""The environment variables that the server reads, beside those that a configuration names."""

from __future__ import annotations

VARIABLES = {
    "POINTSMAN_CONFIG": "The configuration file, where the command line gives none.",
    "POINTSMAN_HOST": "Address to listen on, instead of `listen.host`.",
    "POINTSMAN_PORT": "Port to listen on, instead of `listen.port`.",
    "POINTSMAN_WORKERS": "Processes that answer requests, instead of `listen.workers`.",
    "POINTSMAN_ADMIN_KEY": "A key that may do everything, beside those that are stored.",
    "POINTSMAN_KEY_SECRET": "Secret that stored keys are hashed with; `access.key_secret_env` may "
    "name another variable.",
    "POINTSMAN_ENCRYPTION_KEYS": "Keys that providers' keys are encrypted with in the database; "
    "`access.encryption_keys_env` may name another variable.",
    "POINTSMAN_DATABASE_URL": "The database, instead of `storage.url`; `storage.url_env` may name "
    "another variable.",
    "POINTSMAN_REDIS_URL": "The Redis of sessions, instead of `sessions.redis_url`, and of limits; "
    "`sessions.redis_url_env` and `access.redis_url_env` may name other variables.",
    "POINTSMAN_LOCAL_URL": "Base URL of a local upstream that runs already: none is started then. "
    "`local_upstream.url_env` may name another variable.",
    "POINTSMAN_CACHE": "Folder of base weights and merged checkpoints, instead of "
    "`~/.cache/pointsman`.",
    "NOTIFY_SOCKET": "Set by systemd for services of `Type=notify`: it is told when the server is "
    "ready and when it stops.",
}
