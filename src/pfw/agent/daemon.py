"""The daemon, as the agent speaks with it: prompts and alerts come, answers go.

Three connections, for a stream has its own. That for answers is made first: where the daemon is another one than the
one that asked, it is closed, and no answer reaches a prompt of the same number that was never shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from select import select
from typing import TypeVar

from msgspec import Struct

from pfw.api.client import Client, Stream
from pfw.api.definition import Nothing
from pfw.api.interface import AlertsResult, AnswerParameters, AnswerResult, PromptsResult
from pfw.api.messages import ApiError, ProtocolError

_TIMEOUT_S = 5.0
_HOW_TO_JOIN = 'to join: sudo usermod -aG pfw "$USER", then log in anew'

Result = TypeVar("Result", bound=Struct)


class GoneError(Exception):
    """The daemon is not there, or not any more; says why. It may come back."""


class DeniedError(Exception):
    """The person may not answer, or somebody else than the firewall listens there; says which."""


class NotTakenError(Exception):
    """The daemon did not take an answer; says why. `gone` is whether there is no such prompt any more."""

    def __init__(self, says: str, *, gone: bool) -> None:
        super().__init__(says)
        self.gone = gone


class Daemon:
    """Everything raises GoneError and DeniedError."""

    def __init__(self, path: Path) -> None:
        self._clients: list[Client] = []
        try:
            self._answers = self._connected(path)
            self._prompts = self._connected(path).stream("Prompts", Nothing(), PromptsResult, 0.0)
            self._alerts = self._connected(path).stream("Alerts", Nothing(), AlertsResult, 0.0)
        except (ProtocolError, OSError) as error:
            self.close()
            raise _ended(error) from None
        except BaseException:
            self.close()
            raise

    def filenos(self) -> tuple[int, ...]:
        """What becomes readable when something has come."""
        return tuple(client.fileno() for client in self._clients)

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def prompts(self) -> Iterator[PromptsResult]:
        return _news(self._prompts)

    def alerts(self) -> Iterator[AlertsResult]:
        return _news(self._alerts)

    def answer(self, parameters: AnswerParameters) -> None:
        """Waits until the daemon has taken it, which waits for nobody itself. Raises NotTakenError, too."""
        try:
            self._answers.call("Answer", parameters, AnswerResult)
        except ApiError as error:
            match error.name.rpartition(".")[2]:
                case "NoSuchPrompt":
                    raise NotTakenError("It was answered already, or given up.", gone=True) from None
                case "Refused":
                    raise NotTakenError(str(error.parameters.get("says")), gone=False) from None
            raise _ended(error) from None
        except (ProtocolError, OSError) as error:
            raise _ended(error) from None

    def check(self) -> None:
        """Whether answers can still be given."""
        if self._answers.fileno() < 0 or select([self._answers], [], [], 0)[0]:
            # It says nothing unless it is asked.
            raise GoneError("the daemon has closed the connection")

    def _connected(self, path: Path) -> Client:
        client = Client(path, _TIMEOUT_S)
        self._clients.append(client)
        return client


def _news(stream: Stream[Result]) -> Iterator[Result]:
    """What has come and is not taken yet."""
    try:
        while True:
            yield next(stream)
    except TimeoutError:
        return
    except StopIteration:
        raise GoneError("the daemon has ended") from None
    except (ApiError, ProtocolError, OSError) as error:
        raise _ended(error) from None


def _ended(error: Exception) -> GoneError | DeniedError:
    if isinstance(error, ApiError) and error.name == "org.varlink.service.PermissionDenied":
        return DeniedError(f"only root and the members of the group pfw may answer; {_HOW_TO_JOIN}")
    says = str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        says = f"{error.filename or 'the daemon'}: {error.strerror}"
    return DeniedError(says) if isinstance(error, PermissionError) else GoneError(says)
