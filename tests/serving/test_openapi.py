"""The OpenAPI document, and that nothing made up from it makes the server fail."""

from __future__ import annotations

from typing import Any

import pytest
from access_fakes import ADMIN, bearer
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import one_of
from serving_fakes import KEY, KEY_ENV, FakeEngine, FakeUpstream, config_for

from serving.app import create_app

PATHS = {
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/embeddings",
    "/routing/v1/chat/completions",
    "/routing/v1/responses",
    "/routing/v1/messages",
    "/v1/models",
    "/admin/checkpoint",
    "/admin/keys",
}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """A server whose upstream never answers: nothing listens there."""
    upstream = FakeUpstream()
    upstream.url = "http://127.0.0.1:9/v1"
    environ = {KEY_ENV: KEY, "POINTSMAN_ADMIN_KEY": ADMIN}
    return create_app(config_for(upstream), engine=FakeEngine(), environ=environ)


def test_the_document_names_every_call_and_describes_its_body(app: FastAPI):
    document = app.openapi()
    assert set(document["paths"]) >= PATHS
    for path in PATHS - {"/v1/models"}:
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert body["schema"]["required"], path
    assert {"RoutingPreference", "Router"} <= set(document["components"]["schemas"])
    routers = "/v2/gen-ai/models/routers"
    for call in (document["paths"][routers]["post"], document["paths"][routers + "/{uuid}"]["put"]):
        body = call["requestBody"]["content"]["application/json"]
        assert body["schema"] == {"$ref": "#/components/schemas/Router"}


EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
)


@pytest.mark.timeout(600)
def test_no_request_makes_the_server_fail(app: FastAPI, subtests: pytest.Subtests):
    """Bodies that the document allows, and such as it does not.

    502 and 503 are an upstream's, and 500 is ours alone.
    """
    # Nothing is imported or made while tests are collected, which every process does.
    schemathesis = pytest.importorskip("schemathesis")
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=bearer(ADMIN))

    def ask(case: Any) -> None:
        response = case.call(headers=bearer(ADMIN))
        assert response.status_code != 401
        assert response.status_code != 500
        if response.status_code >= 400 and case.method != "HEAD":
            error = response.json()["error"]
            assert isinstance(error["message"], str)

    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        cases = one_of(*(operation.as_strategy(mode) for mode in modes))
        with subtests.test(operation.label):
            EXAMPLES(given(cases)(ask))()
        asked += 1
    assert asked >= len(PATHS)
