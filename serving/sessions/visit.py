"""One request's part in its session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from routing.values import value_type
from serving.accounts import Settled
from serving.needs import Need
from serving.sessions.key import SessionKey
from serving.sessions.session import Session
from serving.sessions.switching import Reason, Verdict


@value_type
class SessionFacts:
    """What a client, a log and a record are told of a session."""

    session_id: str
    pinned: bool
    """Whether the session's model was kept."""
    switched: bool
    """Whether it was left for another."""
    reason: Reason
    saved: float
    """US dollars in the whole session until now, as is the next."""
    spend: float


@dataclass(slots=True)
class Visit:
    """Filled in while the request goes its way."""

    key: SessionKey
    turn: str
    """Digest of the user turn that it is about."""
    begins: bool
    """Whether it begins a conversation that its client has not named: nothing came before it."""
    on_user_only: bool
    need: Need
    session: Session | None = None
    """As it was found."""
    verdict: Verdict | None = None
    first: str | None = None
    """The model that a ranking without sessions puts first."""
    route: str | None = None
    decided: bool = False
    """Whether the routing model said which task this is, now or when its turn came up."""
    after: Session | None = None
    """As it was left."""
    tell: Callable[[Visit, Settled], None] | None = None
    """Told when the answer has ended."""
    _told: tuple[str | None, Session | None, SessionFacts] | None = None
    """The facts that were last asked for, and what they were made of: headers, log and record ask
    for the same."""

    @property
    def kept_model(self) -> str | None:
        """The model that the request has without being routed; None where it is to be routed."""
        session = self.session
        if session is None:
            return None
        if self.key.explicit and session.decided:
            return session.model
        if self.on_user_only and self.turn == session.turn:
            return session.model
        return None

    def begin(self, model: str, route: str | None, *, decided: bool) -> None:
        """Start a session with the model that is ranked first."""
        self.first, self.route, self.decided = model, route, decided
        self.verdict = Verdict(model, "new")

    def keep(self) -> str | None:
        """Go on with the session's model; the task that the session had."""
        session = self.session
        assert session is not None
        named = self.key.explicit and session.decided
        self.verdict = Verdict(session.model, "affinity" if named else "same_turn")
        self.route, self.decided = session.route, session.decided
        return session.route

    def settled(self, settled: Settled) -> None:
        """The answer has ended."""
        if self.tell is not None:
            self.tell(self, settled)

    def facts(self, answered: str | None = None) -> SessionFacts | None:
        """What there is to tell, `answered` being the model that did; None before it was routed."""
        if self.verdict is None:
            return None
        told = self._told
        if told is not None and told[0] == answered and told[1] is self.after:
            return told[2]
        found = self._facts(self.verdict, answered)
        self._told = answered, self.after, found
        return found

    def _facts(self, verdict: Verdict, answered: str | None) -> SessionFacts:
        came_from = self.session.model if self.session is not None else None
        model = answered or verdict.model
        switched = came_from is not None and model != came_from
        failed = came_from is not None and model != verdict.model
        last = self.after or self.session
        return SessionFacts(
            session_id=self.key.id,
            pinned=came_from is not None and not switched,
            switched=switched,
            reason="failover" if failed else verdict.reason,
            saved=last.saved if last is not None else 0.0,
            spend=last.spend if last is not None else 0.0,
        )
