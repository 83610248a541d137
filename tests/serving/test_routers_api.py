"""Routers made, changed, rolled back and deleted over HTTP while the server runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from serving_fakes import FakeUpstream, Running
from stored_routers import ROUTERS, Api, body, named, replica

FASTEST = {"prefer": "fastest"}


@pytest.fixture
async def kept(database: str, upstream: FakeUpstream) -> AsyncIterator[Running]:
    async with replica(database, upstream) as running:
        yield running


@pytest.fixture
def api(kept: Running) -> Api:
    return Api(kept)


async def test_the_life_of_a_router(kept: Running, api: Api):
    made = await api.create(body(description="Our help desk.", selection_policy=FASTEST))
    assert made.status_code == 200
    assert made.headers["etag"] == '"1"'
    router = made.json()["model_router"]
    assert router | {"uuid": 0, "created_at": 0, "updated_at": 0, "config": 0} == {
        "uuid": 0,
        "name": "help",
        "description": "Our help desk.",
        "config": 0,
        "revision": 1,
        "source": "api",
        "problem": None,
        "author": "anonymous",
        "note": None,
        "created_at": 0,
        "updated_at": 0,
    }
    assert router["config"]["selection_policy"] == FASTEST
    assert router["config"]["fallback_models"] == ["p/fall-1"]
    id = router["uuid"]
    assert (await api.get(f"/{id}")).json() == made.json()

    changed = await api.put(id, body("help", "refund"), '"1"')
    assert changed.status_code == 200
    assert changed.headers["etag"] == '"2"'
    assert named(changed, "refund")
    moved = changed.json()["model_router"]
    assert moved["created_at"] == router["created_at"] < moved["updated_at"]
    # What is the same already makes no revision.
    assert (await api.put(id, body("help", "refund"), '"2"')).headers["etag"] == '"2"'

    back = await api.restore(id, 1, '"2"')
    assert back.headers["etag"] == '"3"'
    assert named(back, "refund", "delivery")
    assert back.json()["model_router"]["note"] == "restored from revision 1"
    history = (await api.get(f"/{id}/revisions")).json()
    assert [each["revision"] for each in history["revisions"]] == [3, 2, 1]
    assert history["meta"] == {"page": 1, "pages": 1, "total": 3}
    assert named(await api.get(f"/{id}/revisions/2"), "refund")

    assert (await kept.chat("refund", model="router:help")).status_code == 200
    gone = await api.delete(id, '"3"')
    assert gone.status_code == 200
    assert gone.json() == {"uuid": id}
    for path in (f"/{id}", f"/{id}/revisions", f"/{id}/revisions/1"):
        assert (await api.get(path)).status_code == 404
    assert (await kept.chat("refund", model="router:help")).status_code == 404


async def test_requests_name_a_router_or_a_revision_of_it(kept: Running, api: Api):
    id = await api.made(body("help", "refund"))
    await api.put(id, body("help", "delivery"))
    for model, text, label, route in (
        ("router:help", "delivery", "help@2", "delivery"),
        ("router:help", "refund", "help@2", "none"),
        ("router:help@1", "refund", "help@1", "refund"),
        ("router:help@2", "delivery", "help@2", "delivery"),
        ("router:work", "coding", "work", "coding"),
    ):
        answer = await kept.chat(text, model=model)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-pointsman-router"] == label
        assert answer.headers["x-model-router-selected-route"] == route
        decided = (await kept.decision({"model": model})).json()
        assert decided["router"] == label
    for model in ("help@3", "help@0", "help@latest", "help@", "work@1", "nobody", "nobody@1"):
        answer = await kept.chat(model=f"router:{model}")
        assert answer.status_code == 404, model
        assert answer.json()["error"]["code"] == "model_not_found"
    listed = [each["id"] for each in (await kept.http.get("/v1/models")).json()["data"]]
    assert [each for each in listed if each.startswith("router:")] == ["router:help", "router:work"]


async def test_a_name_is_free_again_and_its_revisions_are_not(kept: Running, api: Api):
    first = await api.made(body("help", "refund"))
    await api.put(first, body("help", "delivery"))
    assert (await kept.chat("refund", model="router:help@1")).status_code == 200
    await api.delete(first)
    assert (await kept.chat("refund", model="router:help@1")).status_code == 404
    again = await api.create(body("help", "billing"))
    assert again.json()["model_router"]["revision"] == 3
    assert again.json()["model_router"]["uuid"] != first
    # A pinned name never comes to mean something else.
    assert (await kept.chat("refund", model="router:help@1")).status_code == 404
    answer = await kept.chat("billing", model="router:help@3")
    assert answer.headers["x-model-router-selected-route"] == "billing"


async def test_an_edit_of_what_was_not_seen_is_refused(api: Api):
    id = await api.made(body())
    for seen, status, code in (
        (None, 428, "precondition_required"),
        ('"2"', 412, "precondition_failed"),
        ('W/"1"', 412, "precondition_failed"),
        ('"one"', 412, "precondition_failed"),
        ("1", 400, None),
    ):
        changes = (
            await api.put(id, body("help", "refund"), seen),
            await api.restore(id, 1, seen),
            await api.delete(id, seen),
        )
        for answer in changes:
            assert answer.status_code == status, (seen, answer.text)
            error = answer.json()["error"]
            assert (error["param"], error["code"]) == ("if-match", code)
    assert (await api.get(f"/{id}")).headers["etag"] == '"1"'
    assert (await api.put(id, body("help", "refund"), '"7", "1"')).status_code == 200


async def test_a_reader_who_has_it_gets_nothing(api: Api):
    id = await api.made(body())
    for known in ('"1"', 'W/"1"', '"0", "1"', "*"):
        answer = await api.get(f"/{id}", **{"if-none-match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == '"1"'
    assert (await api.get(f"/{id}", **{"if-none-match": '"2"'})).status_code == 200


async def test_the_file_wins(database: str, kept: Running, api: Api, upstream: FakeUpstream):
    [work] = (await api.get()).json()["model_routers"]
    assert (work["name"], work["source"], work["revision"]) == ("work", "file", None)
    assert (await api.get(f"/{work['uuid']}")).json()["model_router"] == work
    refused = (
        await api.create(body("work")),
        await api.put(work["uuid"], body("work")),
        await api.delete(work["uuid"]),
        await api.restore(work["uuid"], 1),
    )
    for answer in refused:
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "router_in_file"
    assert refused[0].json()["error"]["param"] == "name"
    # The next configuration file has a router of a name that is stored.
    id = await api.made(body("help", "refund"))
    async with replica(database, upstream, routers=[body("help", "delivery")]) as other:
        answer = await other.chat("delivery", model="router:help")
        assert answer.headers["x-pointsman-router"] == "help"
        assert answer.headers["x-model-router-selected-route"] == "delivery"
        found = (await Api(other).get()).json()["model_routers"]
        assert [(each["source"], bool(each["problem"])) for each in found] == [
            ("file", False),
            ("api", True),
        ]
        assert (await Api(other).delete(id)).status_code == 200


async def test_lists_have_pages(api: Api):
    for number in range(5):
        await api.made(body(f"r{number}"))
    names, links = [], set()
    for page in (1, 2, 3):
        answer = (await api.get(f"?page={page}&per_page=2")).json()
        assert answer["meta"] == {"page": page, "pages": 3, "total": 6}
        names += [router["name"] for router in answer["model_routers"]]
        links.add(tuple(answer["links"]["pages"]))
    assert names == ["work", "r0", "r1", "r2", "r3", "r4"]
    assert links == {("next", "last"), ("first", "previous", "next", "last"), ("first", "previous")}
    for query, field in (("page=0", "page"), ("per_page=1001", "per_page"), ("page=x", "page")):
        answer = await api.get(f"?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


WRONG: tuple[tuple[dict[str, Any], str | None, str], ...] = (
    ({"name": "Help Desk"}, "name", "should match pattern"),
    ({"name": None}, "name", "valid string"),
    ({"policies": []}, "policies", "at least 1 item"),
    ({"policies": [{"models": ["p/a"]}]}, "policies[0]", "exactly one of task_slug"),
    (
        {"policies": [{"task_slug": "no-such-task", "models": ["p/a"]}]},
        "policies[0].task_slug",
        "no preset task 'no-such-task'",
    ),
    ({"fallback_models": []}, "fallback_models", "at least 1 item"),
    ({"fallback_models": ["p/a", "nobody/b"]}, "fallback_models[1]", "no configured provider"),
    ({"fallback_models": ["p/a", "p/a"]}, None, "must not repeat: 'p/a'"),
    ({"policies": body("x", *"abcdefghi")["policies"]}, "policies", "more than 8 routes"),
    ({"policies": body("x", *map(str, range(257)))["policies"]}, "policies", "at most 256 tasks"),
    ({"selection_policy": {"prefer": "best"}}, "selection_policy.prefer", "'cheapest'"),
    ({"tags": {"a b": "c"}}, "tags", "pattern"),
    ({"regions": ["all"]}, "regions", "not permitted"),
)


async def test_what_is_wrong_is_named(tmp_path: Path, upstream: FakeUpstream):
    async with replica(f"sqlite:///{tmp_path}/a.db", upstream) as kept:
        api = Api(kept)
        id = await api.made(body())
        for update, field, reason in WRONG:
            refused = (
                await api.create({**body("other"), **update}),
                await api.put(id, {**body(), **update}),
            )
            for answer in refused:
                assert answer.status_code == 400, answer.text
                error = answer.json()["error"]
                assert reason in error["message"]
                if field is not None:
                    assert error["param"].startswith(field)
                    assert field in error["message"]
        assert (await api.get(f"/{id}")).headers["etag"] == '"1"'


async def test_what_else_is_refused(kept: Running, api: Api):
    id = await api.made(body())
    for answer, status, param in (
        (await api.create(body()), 409, "name"),
        (await api.put(id, body("other")), 400, "name"),
        (await api.put(str(uuid4()), body()), 404, None),
        (await api.delete("no-uuid"), 404, None),
        (await api.restore(id, 9), 404, None),
        (await api.get(f"/{id}/revisions/x"), 404, None),
        (await kept.http.post(ROUTERS, content=b"{"), 400, None),
    ):
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["param"] == param
    every = {**body("every"), "name": "UPPER", "tags": 3, "fallback_models": 4}
    message = (await api.create(every)).json()["error"]["message"]
    assert all(f"{field}: " in message for field in ("name", "tags", "fallback_models"))


async def test_texts_come_back_as_they_went(api: Api):
    description = "Größe ≥ 3 \u0000 'quoted' \\ 日本 %s :name"
    id = await api.made(body(description=description))
    assert (await api.get(f"/{id}")).json()["model_router"]["description"] == description


async def test_only_the_owner(kept: Running, api: Api):
    kept.app.state.admin_key = "owner-key"
    for answer in (await api.get(), await api.create(body()), await api.delete(str(uuid4()))):
        assert answer.status_code == 401
    allowed = await api.get(authorization="Bearer owner-key")
    assert allowed.status_code == 200


async def test_without_storage_the_file_is_all_there_is(server: Running):
    api = Api(server)
    assert [each["name"] for each in (await api.get()).json()["model_routers"]] == ["work"]
    answer = await api.create(body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "no_storage")
    assert (await api.put(str(uuid4()), body())).status_code == 404
