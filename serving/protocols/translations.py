"""Which translation lets a client of one protocol talk to an upstream of another."""

from __future__ import annotations

from functools import cache

from serving.protocols.base import Protocol, Translation
from serving.protocols.chain import chained
from serving.protocols.chat_over_messages import ChatOverMessages
from serving.protocols.messages_over_chat import MessagesOverChat
from serving.protocols.responses_over_chat import ResponsesOverChat


@cache
def translation(client: Protocol, upstream: Protocol) -> Translation | None:
    """The translation, or None where both speak the same."""
    if client is upstream:
        return None
    if upstream is Protocol.CHAT:
        return MessagesOverChat() if client is Protocol.MESSAGES else ResponsesOverChat()
    if upstream is Protocol.MESSAGES:
        if client is Protocol.CHAT:
            return ChatOverMessages()
        return chained(ResponsesOverChat(), ChatOverMessages())
    raise ValueError(f"no translation from {client} to {upstream}")
