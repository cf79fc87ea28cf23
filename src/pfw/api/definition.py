"""What an interface consists of: methods, what they take and give, and who may call them.

The text that describes an interface to others lies beside this file, in a file of the interface's name; the tests hold
it and the Structs against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from pfw.api.messages import ApiError


class Parameters(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a method takes. An unknown parameter is refused: an answer with `secnds` must not last for ever."""


class Result(Struct, frozen=True, kw_only=True):
    """What a method gives, and the types in it. A client reads over what a newer server adds. What is null is sent as
    such: many a client gives its caller the object as it came, and a field that is not there is a surprise."""


class Fault(Struct, frozen=True, kw_only=True):
    """What comes with an error; the class is called as the error is."""


class Nothing(Parameters, frozen=True, kw_only=True):
    """The parameters of a method that has none."""


class Right(StrEnum):
    """What a caller must be allowed to do."""

    ANYONE = "anyone"
    """Everybody may: which interfaces there are is no secret."""
    READ = "read"
    """See what the firewall sees: programs, connections, rules. For root and the group."""
    ANSWER = "answer"
    """Answer what the firewall asks. For root and the group."""
    WRITE = "write"
    """Change what it does otherwise. For root."""


class Streams(StrEnum):
    """Whether a method goes on answering a call with `more`."""

    NEVER = "never"
    MAY = "may"
    ALWAYS = "always"
    """It cannot be called without."""


class Method(Struct, frozen=True):
    name: str
    parameters: type[Parameters]
    result: type[Result]
    right: Right
    streams: Streams = Streams.NEVER


class Interface(Struct, frozen=True):
    name: str
    methods: Mapping[str, Method]
    faults: tuple[type[Fault], ...]

    def failure(self, fault: Fault) -> ApiError:
        """What a handler raises to answer with an error of this interface."""
        kind = type(fault)
        if kind not in self.faults:
            raise TypeError(f"{kind.__name__} is no error of {self.name}")
        values = {name: getattr(fault, name) for name in kind.__struct_fields__}
        return ApiError(f"{self.name}.{kind.__name__}", values)

    def description(self) -> str:
        """The interface in Varlink's own language (varlink.org, "Interface Definition"). Raises OSError."""
        return Path(__file__).with_name(f"{self.name}.varlink").read_text(encoding="utf-8")


def by_name(*methods: Method) -> dict[str, Method]:
    return {method.name: method for method in methods}
