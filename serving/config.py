"""The server's configuration: one YAML file, typed, refused if it holds a key nobody knows.

Precedence: command line over environment over file; `environment` lists the variables. Keys of
providers are never in the file: it names the environment variable that holds one. Paths in a file
are relative to that file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from routing.tasks import ModelName, Router, Tag, TaskName
from serving.config_access import AccessConfig
from serving.config_base import BaseUrl, EnvName, ProviderName, Seconds, Strict
from serving.config_listen import DrainConfig, Listen
from serving.config_ranking import LatencyConfig, ModelConfig, PricesConfig
from serving.config_records import RecordsConfig
from serving.config_sessions import SessionsConfig
from serving.config_storage import StorageConfig
from serving.config_tracing import LoggingConfig, TracingConfig
from serving.errors import ConfigError, validation_lines

DEFAULT_CONFIG = Path("configs/serve.yaml")


class DialectConfig(Strict):
    """What a provider takes beside its protocol's current version: how requests are translated."""

    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """What OpenAI calls the limit of output tokens; many other servers know only the old name."""
    reasoning_effort: bool = True
    """Whether OpenAI's field of that name is taken."""
    default_max_tokens: Annotated[int, Field(ge=1)] = 16_384
    """Sent to Anthropic where the client sets no limit: it requires one."""
    sampling: bool = False
    """Whether Anthropic's `temperature` and `top_p` are taken, as by Claude models before 4.7."""
    thinking_budgets: bool = False
    """Whether Anthropic's thinking is bounded by a budget, as before 4.6, and not by effort."""


class ProviderConfig(Strict):
    """An upstream. Any `provider/model` name reaches it."""

    protocol: Literal["openai", "anthropic"] = "openai"
    """Its wire format: OpenAI's Chat Completions or Anthropic's Messages."""
    responses: bool = False
    """Whether it answers OpenAI's Responses too; if not, those requests are translated."""
    stream_usage: bool = True
    """Whether a stream's usage may be asked of it by `stream_options`."""
    dialect: DialectConfig = DialectConfig()
    """What it takes beside its protocol's current version."""
    base_url: BaseUrl | None = None
    """Such as https://host/v1; this or the next."""
    base_url_env: EnvName | None = None
    """Variable that holds the base URL; the provider is off while it is unset or empty."""
    api_key_env: EnvName | None = None
    """Variable that holds the key; null for a provider without keys."""
    api_key_required: bool = True
    """Whether the provider is off while its key's variable is unset or empty."""
    tags: dict[Tag, Tag] = Field(default_factory=dict)
    """Of all its models, which may add to them and replace them."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.base_url is None) == (self.base_url_env is None):
            raise ValueError("give exactly one of base_url and base_url_env")
        if self.responses and self.protocol != "openai":
            raise ValueError("responses: only a provider of protocol openai can answer them")
        return self


class StandIns(Strict):
    """Who answers for a pool none of whose providers is on, so that routing works without keys."""

    default: ModelName
    """For every task that is not named below."""
    tasks: dict[TaskName, ModelName] = Field(default_factory=dict)
    """By task."""


class _Checkpoint(Strict):
    checkpoint: Path
    """Folder of a routing model: its manifest, and weights or an adapter."""
    base: Path | None = None
    """Folder of the base weights; left out, the command line provides them."""
    max_waiting: Annotated[int, Field(ge=1)] = 64
    """Decisions that may wait; beyond it, requests go to their fallbacks at once."""
    shortlist_above: Annotated[int, Field(ge=2)] = 24
    """Routes that the model reads at most; of more, an encoder picks so many."""


class EmbeddedConfig(_Checkpoint):
    """The routing model in this process, by transformers, on the CPU."""

    kind: Literal["embedded"] = "embedded"
    """This engine."""
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    """CPU threads of a forward pass."""
    cache_mb: Annotated[int, Field(ge=0)] = 512
    """MB of 2^20 bytes for the prefixes of routers and of live conversations."""


class VllmConfig(_Checkpoint):
    """The routing model in vLLM, whose engine core this server starts and watches."""

    kind: Literal["vllm"]
    """This engine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights in vLLM's memory; auto is the checkpoint's own."""
    hang_s: Seconds = 60
    """A decision that takes longer means that vLLM hangs: it is started anew."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's AsyncEngineArgs."""


class EndpointsConfig(_Checkpoint):
    """The routing model at `vllm serve` endpoints that all serve the checkpoint's export."""

    kind: Literal["endpoints"]
    """This engine."""
    urls: Annotated[list[BaseUrl], Field(min_length=1)]
    """Base URLs without /v1."""
    model: str | None = None
    """The name they serve it by; asked of them if left out."""
    api_key_env: EnvName | None = None
    """Variable that holds their key, if they want one."""
    timeout_s: Seconds = 30
    """Of one call to an endpoint."""


def _embedded_by_default(raw: Any) -> Any:
    return {"kind": "embedded", **raw} if isinstance(raw, dict) else raw


EngineConfig = Annotated[
    EmbeddedConfig | VllmConfig | EndpointsConfig,
    Field(discriminator="kind"),
    BeforeValidator(_embedded_by_default),
]
"""The routing model; embedded where no kind is given."""


EngineKind = Literal["embedded", "vllm"]
"""Engines that need nothing but a checkpoint."""


def with_engine(
    config: EngineConfig, base: Path | None, checkpoint: Path | None, kind: EngineKind | None
) -> EngineConfig:
    """An engine's section with what the command line gives; another kind has its own defaults."""
    paths = {"checkpoint": checkpoint or config.checkpoint, "base": config.base or base}
    if kind is None or kind == config.kind:
        return config.model_copy(update=paths)
    if kind == "vllm":
        return VllmConfig(kind=kind, **paths)
    return EmbeddedConfig(**paths)


class Limits(Strict):
    """Bounds of one request."""

    body_bytes: Annotated[int, Field(gt=0)] = 32 * 2**20
    """Of a request."""
    answer_bytes: Annotated[int, Field(gt=0)] = 64 * 2**20
    """Of an answer that is not streamed: it is held until it is whole."""
    decision_timeout_ms: Annotated[float, Field(gt=0)] = 2000
    """After which a request goes to its fallbacks undecided."""
    remembered_decisions: Annotated[int, Field(ge=0)] = 10_000
    """Asked again about the same turn, as in a tool loop, the router answers from memory."""
    connect_s: Seconds = 5
    """To an upstream."""
    keepalive_s: Seconds = 4
    """An idle connection to an upstream is kept so long; less than upstreams themselves keep it,
    or a request could meet one that is just being closed."""
    first_byte_s: Seconds = 120
    """Until the first event of a stream, or the head of a whole answer."""
    idle_s: Seconds = 60
    """Between two pieces of an answer."""
    total_s: Seconds = 600
    """The whole request, all attempts and the stream included."""


class FailoverConfig(Strict):
    """After which errors the next model is asked. Connections that fail and timeouts always are."""

    statuses: frozenset[Annotated[int, Field(ge=400, le=599)]] = frozenset(
        {401, 402, 403, 404, 408, 409, 425, 429, *range(500, 600)}
    )
    """HTTP statuses of an upstream."""
    context_length: bool = True
    """Also where the prompt is too long for the model: another may hold it."""
    content_policy: bool = True
    """Also where the provider's filter refused the prompt: another's may not."""


class BreakerConfig(Strict):
    """When a failing model is left alone, and for how long."""

    failures: Annotated[int, Field(ge=1)] = 3
    """In a row, after which it is asked only where nothing else is left."""
    open_s: Seconds = 5
    """For the first time; doubled at each failed probe, and jittered down to its half."""
    open_max_s: Seconds = 120
    """Doubling ends here."""
    probe_s: Seconds = 30
    """A probe that has told nothing for so long no longer keeps the next away."""
    retry_after_max_s: Seconds = 300
    """An upstream's `Retry-After` is heeded up to this."""


class LocalUpstream(Strict):
    """The base model as a chat upstream on this machine, started and stopped with the server."""

    enabled: bool = False
    """Whether it is started, where the variable below is unset."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """0 picks a free one."""
    base: Path | None = None
    """Folder of its weights; left out, the command line provides them."""
    url_env: EnvName = "POINTSMAN_LOCAL_URL"
    """The variable through which a provider of this file learns its base URL."""


class ServerConfig(Strict):
    """A whole file."""

    listen: Listen = Listen()
    """Address, port, processes."""
    drain: DrainConfig = DrainConfig()
    """How the server ends."""
    engine: EngineConfig | None = None
    """What runs the routing model, by `kind`; embedded where none is given."""
    presets: Path | None = None
    """Folder of preset files."""
    preset_routers: list[str] = Field(default_factory=list)
    """Presets that are served as routers, by slug."""
    routers: list[Router] = Field(default_factory=list)
    """The owner's own routers, in the form of the routers' CRUD body."""
    providers: dict[ProviderName, ProviderConfig] = Field(default_factory=dict)
    """Upstreams by name; any `provider/model` is served."""
    models: dict[ModelName, ModelConfig] = Field(default_factory=dict)
    """Public names of models, and what is known of them."""
    stand_ins: StandIns | None = None
    """Who answers where no model of a router is switched on."""
    latency: LatencyConfig = LatencyConfig()
    """How expected times are known."""
    prices: PricesConfig = PricesConfig()
    """Where prices come from that `models` does not give."""
    limits: Limits = Limits()
    """Sizes and times of requests and answers."""
    failover: FailoverConfig = FailoverConfig()
    """After which errors the next model is asked."""
    breaker: BreakerConfig = BreakerConfig()
    """When a failing model is left alone."""
    sessions: SessionsConfig = SessionsConfig()
    """How requests that belong together keep their model."""
    local_upstream: LocalUpstream = LocalUpstream()
    """A small chat model on this machine."""
    access: AccessConfig = AccessConfig()
    """Who may call."""
    storage: StorageConfig | None = None
    """Left out, nothing outlives the server: routers are this file's, and no keys are kept."""
    records: RecordsConfig = RecordsConfig()
    """Needs `storage`; without one nothing is recorded."""
    tracing: TracingConfig = TracingConfig()
    """OpenTelemetry's traces."""
    logging: LoggingConfig = LoggingConfig()
    """What is logged."""

    @model_validator(mode="after")
    def _known_providers(self) -> Self:
        for name, model in self.models.items():
            if model.provider not in self.providers:
                raise ValueError(f"models.{name}.provider: no provider {model.provider!r}")
        if self.preset_routers and self.presets is None:
            raise ValueError("preset_routers: needs presets, the folder of preset files")
        if self.records.text.store and self.storage is None:
            raise ValueError("records.text.store: needs storage, where texts are to be kept")
        return self


def load_config(path: str | Path) -> ServerConfig:
    """Read and check a file; raises ConfigError that names file and field."""
    path = Path(path)
    config = parse(ServerConfig, read_yaml(path), path)
    folder = path.resolve().parent
    update: dict[str, Any] = {}
    if config.presets:
        update["presets"] = (folder / config.presets).resolve()
    if config.engine:
        paths = {"checkpoint": (folder / config.engine.checkpoint).resolve()}
        if config.engine.base:
            paths["base"] = (folder / config.engine.base).resolve()
        update["engine"] = config.engine.model_copy(update=paths)
    if config.local_upstream.base:
        base = {"base": (folder / config.local_upstream.base).resolve()}
        update["local_upstream"] = config.local_upstream.model_copy(update=base)
    if config.storage:
        update["storage"] = config.storage.within(folder)
    return config.model_copy(update=update)


M = TypeVar("M", bound=BaseModel)


def parse(kind: type[M], raw: Any, path: Path) -> M:
    """A model of a file's content; raises ConfigError with one line a problem."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(f"{path}: {line}" for line in validation_lines(error))
        ) from None


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a later key replace an earlier one silently; a router must not vanish so."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int):
                continue
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; raises ConfigError with file and line."""
    try:
        with open(path, encoding="utf-8") as file:
            return yaml.load(file, _UniqueKeys) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
