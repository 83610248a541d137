"""Conversations as agents hold them, in the words of each of the three protocols."""

from __future__ import annotations

from typing import Any

PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
TOOL = {"type": "object", "properties": {"at": {"type": "string"}}}
REMINDER = "<system-reminder>\nYour todo list is empty.\n</system-reminder>"
PICTURE = "aGVsbG8="


class Talk:
    """One conversation that grows; `body` is what a client of the protocol would send next."""

    def __init__(self, protocol: str, system: str = "You are an agent.", **fields: Any) -> None:
        self.protocol = protocol
        self.system = system
        self.fields = fields
        self.items: list[dict[str, Any]] = []
        self._calls = 0

    @property
    def path(self) -> str:
        return PATHS[self.protocol]

    def body(self, model: str = "router:work") -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "tools": [self._tool()], **self.fields}
        if self.protocol == "responses":
            return {**body, "instructions": self.system, "input": self.items}
        if self.protocol == "messages":
            return {**body, "max_tokens": 100, "system": self.system, "messages": self.items}
        messages = [{"role": "system", "content": self.system}, *self.items]
        return {**body, "messages": messages}

    def user(self, text: str) -> Talk:
        self.items.append({"role": "user", "content": text})
        return self

    def assistant(self, text: str = "Done.") -> Talk:
        self.items.append({"role": "assistant", "content": text})
        return self

    def picture(self) -> Talk:
        """A user's message that is a picture alone."""
        url = f"data:image/png;base64,{PICTURE}"
        source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
        part: dict[str, Any] = {
            "chat": {"type": "image_url", "image_url": {"url": url}},
            "responses": {"type": "input_image", "image_url": url},
            "messages": {"type": "image", "source": source},
        }[self.protocol]
        self.items.append({"role": "user", "content": [part]})
        return self

    def tool(self, result: str = "main.py", *, reminder: bool = False) -> Talk:
        """A call of a tool and its result, with an envelope beside it where agents put one."""
        self._calls += 1
        call = f"call_{self._calls}"
        if self.protocol == "responses":
            item = {"type": "function_call", "call_id": call, "name": "ls", "arguments": "{}"}
            output = {"type": "function_call_output", "call_id": call, "output": result}
            self.items += [item, output]
        elif self.protocol == "messages":
            use = {"type": "tool_use", "id": call, "name": "ls", "input": {}}
            given: list[dict[str, Any]] = [
                {"type": "tool_result", "tool_use_id": call, "content": result}
            ]
            if reminder:
                given.append({"type": "text", "text": REMINDER})
            self.items += [
                {"role": "assistant", "content": [use]},
                {"role": "user", "content": given},
            ]
            return self
        else:
            function = {"name": "ls", "arguments": "{}"}
            made = [{"id": call, "type": "function", "function": function}]
            self.items += [
                {"role": "assistant", "content": None, "tool_calls": made},
                {"role": "tool", "tool_call_id": call, "content": result},
            ]
        if reminder:
            self.user(REMINDER)
        return self

    def _tool(self) -> dict[str, Any]:
        function = {"name": "ls", "description": "Lists files.", "parameters": TOOL}
        if self.protocol == "chat":
            return {"type": "function", "function": function}
        if self.protocol == "responses":
            return {"type": "function", **function}
        return {"name": "ls", "description": "Lists files.", "input_schema": TOOL}
