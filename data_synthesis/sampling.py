"""Conversations as a person would read them."""

from __future__ import annotations

import textwrap

from routing.records import ConversationRecord

WIDTH = 96


def transcript(record: ConversationRecord) -> str:
    """Routes, then the messages in order, each user turn with the routes it needs."""
    expected = {label.message: label.expected for label in record.decisions}
    lines = [f"── {record.id} · {record.tags['source']} · {record.tags['scene']}"]
    lines += [
        textwrap.shorten(f"   {route.name}: {route.description}", WIDTH) for route in record.routes
    ]
    for index, message in enumerate(record.messages):
        label = ""
        if index in expected:
            label = f"  → {', '.join(expected[index]) or 'none'}"
        content = message["content"] or f"[calls {message['tool_calls'][0]['function']['name']}]"
        text = textwrap.indent(str(content), "    ").strip()
        lines.append(f"{message['role']:>9}: {text}{label}")
    return "\n".join(lines) + "\n"
