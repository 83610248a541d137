"""Types that every section of the configuration is made of."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def check_base_url(value: str) -> str:
    """A base URL such as ``https://api.openai.com/v1``, without a trailing slash.

    Raises ValueError without repeating the value, which may come from the environment.
    """
    try:
        parts = urlsplit(value.strip())
        _ = parts.port  # raises ValueError for one that is no number
    except ValueError:
        raise ValueError("must be a URL such as https://host/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL such as https://host/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must hold no user, password, query or fragment")
    return value.strip().rstrip("/")


def origin_of(url: str) -> str:
    """Scheme, host and port of a base URL, as ``https://api.openai.com:443``."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


BaseUrl = Annotated[str, AfterValidator(check_base_url)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
ProviderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=64)]
Seconds = Annotated[float, Field(gt=0)]


class Strict(BaseModel):
    """Base of everything in the file: an unknown key is an error, not silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
