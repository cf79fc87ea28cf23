"""The daemon's interface: what each method does (`api/org.pfw.Firewall.varlink` says what it means)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pfw import __version__
from pfw.api import interface as told
from pfw.api.definition import Nothing
from pfw.api.peer import Peer
from pfw.api.server import Handler, Info, Server, StreamHandler
from pfw.api.service import SERVICE, InvalidParameter
from pfw.api.subscription import Subscription
from pfw.daemon import views
from pfw.daemon.attribution import Found
from pfw.drivers import clock, processes
from pfw.model.flow import Direction, Flow
from pfw.model.packet import TCP
from pfw.model.program import Program
from pfw.model.prompt import (
    Answer,
    Changed,
    Gone,
    Lasting,
    NoSuchPromptError,
    Prompt,
    PromptCommand,
    Publish,
    Scope,
)
from pfw.model.verdict import Action
from pfw.wire.error import WireError

if TYPE_CHECKING:
    from pfw.daemon.service import Service

_PIECE = 200
"""So many connections stand in one message of a stream."""
_NOWHERE = bytes(4)


class Api:
    """Serves the daemon's interface at a socket; members of `group` may see and answer."""

    def __init__(self, service: Service, path: Path, group: int | None) -> None:
        self._service = service
        self._watchers: list[Subscription] = []
        handlers: dict[str, Handler] = {
            "Status": self._status,
            "Prompts": self._prompts,
            "Answer": self._answer,
            "Apps": self._apps,
            "Connections": self._connections,
            "Why": self._why,
            "Reload": self._reload,
        }
        streams: dict[str, StreamHandler] = {
            "Prompts": self._watch_prompts,
            "Connections": self._stream_connections,
            "Alerts": self._alerts,
        }
        self.server = Server(
            path, handlers, streams, loop=service.loop, group=group, info=Info(__version__), failed=self._failed
        )  # fmt: skip

    def close(self) -> None:
        self.server.close()

    def attended(self) -> None:
        """Whether anybody is there to be asked."""
        self._watchers = [each for each in self._watchers if not each.closed]
        service = self._service
        service.asking.do(service.prompts.attend(bool(self._watchers), clock.now()))

    def perform(self, commands: list[PromptCommand]) -> None:
        """Tell those who watch what became of prompts."""
        for command in commands:
            match command:
                case Publish(prompt=prompt) | Changed(prompt=prompt):
                    self.server.publish("Prompts", told.PromptsResult(prompts=(self._prompt(prompt),), gone=()))
                case Gone(prompt_id=number):
                    self.server.publish("Prompts", told.PromptsResult(prompts=(), gone=(number,)))

    def alert(self, kind: str, says: str) -> None:
        self.server.publish("Alerts", told.AlertsResult(time=clock.now(), kind=kind, says=says))

    def _failed(self, method: str, error: Exception) -> None:
        self._service.tell(f"method {method}: {type(error).__name__}: {error}")

    def _status(self, _: Nothing, __: Peer) -> told.StatusResult:
        service = self._service
        force = service.force
        labels = f"no: {service.why_no_labels}" if service.labels is None else f"mask {force.mask:#010x}"
        return told.StatusResult(
            version=__version__,
            pid=os.getpid(),
            started=service.started,
            policy=force.applied.path if force.applied is not None else "",
            generation=force.generation or 0,
            labels=labels,
            queue=service.queued_by or "not needed",
            counts=service.status(),
        )

    def _prompt(self, each: Prompt) -> told.Prompt:
        return views.prompt(each, self._service.naming.of(each.subject.remote))

    def _prompts(self, _: Nothing, __: Peer) -> told.PromptsResult:
        return told.PromptsResult(prompts=tuple(map(self._prompt, self._service.prompts.prompts)), gone=())

    def _watch_prompts(self, _: Nothing, __: Peer, subscription: Subscription) -> None:
        self._watchers.append(subscription)
        found = iter(map(self._prompt, self._service.prompts.prompts))
        first = told.PromptsResult(prompts=tuple(islice(found, _PIECE)), gone=())

        def pieces() -> Iterator[told.PromptsResult]:
            yield first
            while piece := tuple(islice(found, _PIECE)):
                yield told.PromptsResult(prompts=piece, gone=())

        subscription.send_all(pieces())
        self.attended()

    def _answer(self, given: told.AnswerParameters, _: Peer) -> told.AnswerResult:
        answer = Answer(given.action == "allow", Lasting(given.lasting), Scope(given.scope), given.seconds)
        try:
            self._service.answer(given.id, answer)
        except NoSuchPromptError:
            raise told.failure(told.NoSuchPrompt(id=given.id)) from None
        except ValueError as error:
            raise told.failure(told.Refused(says=str(error))) from None
        trouble = self._service.take_trouble()
        if trouble:
            raise told.failure(told.Refused(says=trouble))
        return told.AnswerResult(done="allowed" if answer.allow else "blocked")

    def _apps(self, _: Nothing, __: Peer) -> told.AppsResult:
        return told.AppsResult(apps=tuple(self._service.census.apps()))

    def _connections(self, _: Nothing, __: Peer) -> told.ConnectionsResult:
        return told.ConnectionsResult(connections=tuple(islice(self._all(), 2000)))

    def _stream_connections(self, _: Nothing, __: Peer, subscription: Subscription) -> None:
        found = self._all()

        def pieces() -> Iterator[told.ConnectionsResult]:
            while piece := tuple(islice(found, _PIECE)):
                yield told.ConnectionsResult(connections=piece)
            yield told.ConnectionsResult(connections=())

        subscription.send_all(pieces())

    def _all(self) -> Iterator[told.Connection]:
        try:
            yield from self._service.connections.all()
        except (OSError, WireError) as error:
            raise told.failure(told.Refused(says=f"the kernel does not tell of connections: {error}")) from None

    def _alerts(self, _: Nothing, __: Peer, subscription: Subscription) -> None:
        del subscription  # the server keeps it, and sends what is published

    def _why(self, asked: told.WhyParameters, _: Peer) -> told.WhyResult:
        program, owner = self._asked_about(asked)
        force = self._service.force
        if force.policy is None:
            return told.WhyResult(program=program, reasons=(), says="no policy is in force: it may do anything")
        flow = Flow(direction=Direction.OUT, protocol=TCP, source=_NOWHERE, destination=_NOWHERE)
        found = views.reasons(force.policy.rules, force.described(flow, owner))
        defaults = {each: force.policy.defaults[each] for each in (Direction.IN, Direction.OUT)}
        ends = ", ".join(f"{each} {_ends(action)}" for each, action in defaults.items())
        found += [
            told.Reason(rule=f"default {each}", action=str(action), says=f"{action} {each}", matches="yes")
            for each, action in defaults.items()
        ]
        return told.WhyResult(program=program, reasons=tuple(found), says=f"what no rule decides: {ends}")

    def _asked_about(self, asked: told.WhyParameters) -> tuple[told.Program | None, Found]:
        if asked.pid is not None:
            program = processes.program(asked.pid)
            if program is None:
                raise told.failure(told.NoSuchProgram())
            return told.Program.of(program), Found.of_process(program)
        if asked.path is not None and "\0" in asked.path:
            # No file can have such a path: the system raises ValueError for it.
            raise SERVICE.failure(InvalidParameter(parameter="path"))
        path = os.path.realpath(asked.path or "")
        if not os.path.isfile(path):
            raise told.failure(told.NoSuchProgram())
        return None, Found.of_process(Program(pid=0, path=path))

    def _reload(self, _: Nothing, __: Peer) -> told.ReloadResult:
        self._service.force.forget()
        self._service.check()
        return told.ReloadResult(generation=self._service.force.generation or 0)


def _ends(action: Action) -> str:
    return {Action.ALLOW: "allowed", Action.BLOCK: "blocked", Action.REJECT: "rejected", Action.ASK: "asked"}[action]
