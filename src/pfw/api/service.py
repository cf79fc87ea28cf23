"""The interface that every Varlink service has: who is there, and what it can do (varlink.org, "Service")."""

from __future__ import annotations

from pfw.api.definition import Fault, Interface, Method, Nothing, Parameters, Result, Right, by_name


class GetInfoResult(Result, frozen=True, kw_only=True):
    vendor: str
    product: str
    version: str
    url: str
    interfaces: tuple[str, ...]


class GetInterfaceDescriptionParameters(Parameters, frozen=True, kw_only=True):
    interface: str


class GetInterfaceDescriptionResult(Result, frozen=True, kw_only=True):
    description: str


class InterfaceNotFound(Fault, frozen=True, kw_only=True):
    interface: str


class MethodNotFound(Fault, frozen=True, kw_only=True):
    method: str


class MethodNotImplemented(Fault, frozen=True, kw_only=True):
    method: str


class InvalidParameter(Fault, frozen=True, kw_only=True):
    parameter: str


class PermissionDenied(Fault, frozen=True, kw_only=True):
    pass


class ExpectedMore(Fault, frozen=True, kw_only=True):
    pass


SERVICE = Interface(
    "org.varlink.service",
    by_name(
        Method("GetInfo", Nothing, GetInfoResult, Right.ANYONE),
        Method(
            "GetInterfaceDescription", GetInterfaceDescriptionParameters, GetInterfaceDescriptionResult, Right.ANYONE
        ),
    ),
    (InterfaceNotFound, MethodNotFound, MethodNotImplemented, InvalidParameter, PermissionDenied, ExpectedMore),
)
