"""OpenTelemetry traces, for owners who want them.

notes   what is noted while a request goes its way; nothing is imported for it
names   names of spans and attributes
spans   spans made of the notes once the request has ended, and their way to the collector
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.config_tracing import TracingConfig
from serving.errors import ConfigError

if TYPE_CHECKING:
    from serving.tracing.spans import Tracing


def open_tracing(config: TracingConfig) -> Tracing | None:
    """The tracing of a configuration; None where none is wanted, and then nothing is imported.

    Raises ConfigError where OpenTelemetry is not installed.
    """
    if not config.enabled:
        return None
    try:
        from serving.tracing.spans import Tracing
    except ModuleNotFoundError:
        raise ConfigError("tracing: needs OpenTelemetry: pip install 'pointsman[otel]'") from None
    return Tracing(config)
