"""Stands in for `python -m serving.local_upstream` in tests of the process around it."""

from __future__ import annotations

import argparse

from aiohttp import web

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--base")
args = parser.parse_args()


async def health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def chat(request: web.Request) -> web.Response:
    body = await request.json()
    message = {"role": "assistant", "content": f"from {args.base}"}
    return web.json_response(
        {"model": body["model"], "choices": [{"index": 0, "message": message}]}
    )


app = web.Application()
app.router.add_get("/healthz", health)
app.router.add_post("/v1/chat/completions", chat)
web.run_app(app, host="127.0.0.1", port=args.port, print=None)
