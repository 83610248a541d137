"""What a cluster would train, by its tiny twin: the export of a mixture answers over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving_fakes import FakeUpstream, config_for, serving

from serving.engine.embedded import EmbeddedEngine
from training.export import export

pytestmark = pytest.mark.timeout(280)


async def test_the_export_of_a_mixture_answers_a_routing_request(
    experts_twin: Path, upstream: FakeUpstream, tmp_path: Path
) -> None:
    manifest = export(experts_twin / "checkpoint", experts_twin / "base", tmp_path / "export")
    engine = EmbeddedEngine(tmp_path / "export", None)
    config = config_for(upstream, limits={"decision_timeout_ms": 20_000})
    async with serving(config, engine, upstream) as running:  # type: ignore[arg-type]
        body = {"model": "router:work", "messages": [{"role": "user", "content": "fix my loop"}]}
        decision = await running.http.post("/routing/v1/chat/completions", json=body)
        answer = await running.http.post("/v1/chat/completions", json=body)
    assert decision.status_code == answer.status_code == 200, decision.text
    shares = decision.json()["distribution"]
    assert set(shares) == {"coding", "writing", "none"}
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)
    assert engine.version == manifest.version
