"""The JSON Schema of a policy file (draft 2020-12): editors complete, explain and check with it.

It holds no word of its own: names, keys and bounds are those of the tables that loading uses. A schema
cannot say everything (whether a name is an alias, which fields go together), so what it accepts may still
be refused; what loading accepts it accepts.
"""

from __future__ import annotations

from collections.abc import Iterable

from pfw.model.flow import Direction
from pfw.model.policy import Ask
from pfw.model.verdict import Action
from pfw.policy import asking, blocklists, programs, schema_respond, schema_tests, simple, times, values
from pfw.policy.addresses import BUILT_IN_ALIASES
from pfw.policy.fields import REQUIRED
from pfw.policy.load import BASE_KEYS, DEFAULT_ACTIONS, FULL_KEYS, VERSION
from pfw.policy.names import MAX_ALIAS_NAME
from pfw.policy.ports import LAST_PORT

Schema = dict[str, object]

_WHOLE_PATH = "^/[^*]*[^*/]$"

_DRAFT = "https://json-schema.org/draft/2020-12/schema"

_DESCRIPTIONS: dict[str, str] = {
    "name": "What people see in logs and on screens; each rule has its own. Names are never the order.",
    "action": "allow; block: drop in silence; reject: answer with a refusal; ask: a person decides.",
    "direction": "As seen from this machine: in, out, forward, or both (in and out).",
    "from": "Source of the connection's first packet: address, prefix, range, alias or a list; ! in front excludes.",
    "to": "Destination of the connection's first packet, written as in from.",
    "remote": "The other end, whichever side started; written as in from. Not with from, to or forward.",
    "protocol": "Name, number or a list; icmp is both ICMP and ICMPv6.",
    "port": "Destination port: number, range, service name, alias or a list; without protocol: tcp and udp.",
    "from_port": "Source port, written as in port.",
    "icmp_type": "Name, number or a list; a number is of each ICMP protocol of the rule.",
    "interface": "The interface it came in by (in, forward) or leaves by (out); * at the end is a wildcard.",
    "app": "Path of the program's executable, * at its end is a wildcard; or path and sha256 of one; or a list. "
    "For in, the program that would receive it.",
    "script": "Path of what the app runs, or a list; the daemon decides such a rule, for each connection anew.",
    "user": 'User name or id, or "group:" and the name or id of a group.',
    "unit": "Systemd unit or control group.",
    "schedule": "When the rule holds, by the local clock.",
    "limit": "So many connections in a time for each source address; above it the rule does not match.",
    "burst": "How many connections a limit lets through at once.",
    "expires": "After this time the rule no longer exists. A date alone ends with that day; no zone: local clock.",
    "log": "Record every match. (What is blocked is always recorded.)",
    "enabled": "false: the rule is as good as not there.",
    "note": "For people.",
}

_BLOCKLIST_DESCRIPTIONS: dict[str, str] = {
    "name": "What people see; each list has its own. Letters, digits, _ - and . only.",
    "source": "Where the addresses are: the absolute path of a file, or a URL (https:// or http://).",
    "refresh": "How often a URL is asked: a number and m, h or d. A file is always read again.",
    "direction": "in: from a listed address; out: to one; both. What is forwarded is covered by each.",
    "enabled": "false: the list is as good as not there.",
    "note": "For people.",
}

_ASK_DESCRIPTIONS: dict[str, str] = {
    "timeout": "How long an answer may take: seconds, or a number and s, m or h, up to an hour.",
    "unattended": "What is done when no answer comes.",
}

_BASE_DESCRIPTIONS: dict[str, str] = {
    "loopback": "Traffic of this machine with itself.",
    "neighbour_discovery": "ICMPv6 neighbour and router discovery.",
    "dhcp_client": "This machine getting its address.",
    "icmp_errors": "Path-MTU and other ICMP errors that belong to a connection.",
}


def schema() -> Schema:
    """The schema of both forms, as a value that json.dumps takes."""
    return {
        "$schema": _DRAFT,
        "title": "Personal Firewall policy",
        "description": "What may talk to this machine, and which programs on it may talk to the network.",
        "type": "object",
        "if": {"anyOf": [{"required": [key]} for key in FULL_KEYS]},
        "then": {"$ref": "#/$defs/full"},
        "else": {"$ref": "#/$defs/simple"},
        "$defs": {
            "full": _full(),
            "simple": _simple(),
            "rule": _rule(),
            "lists": _lists(),
            "aliases": _aliases(),
            "blocklist": _blocklist(),
            "respond": schema_respond.respond(_ref("address"), _ref("reaction")),
            "reaction": schema_respond.reaction(),
            "test": schema_tests.test(_user()),
            "schedule": _schedule(),
            "app": _app(),
            "ask": _ask(),
            "address": _address(),
            "port": _port(),
            "protocol": _protocol(),
            "icmp_type": _icmp_type(),
        },
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _object(properties: Schema, description: str, required: Iterable[str] = ()) -> Schema:
    made: Schema = {"type": "object", "description": description, "properties": properties}
    if required:
        made["required"] = list(required)
    made["additionalProperties"] = False
    return made


def _one_or_list(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


def _any_case(words: Iterable[str]) -> Schema:
    """The words for completion, and the same in any case for checking."""
    spelled = list(words)
    patterns = ("".join(f"[{c.upper()}{c}]" if c.isalpha() else c for c in word) for word in spelled)
    return {"anyOf": [{"enum": spelled}, {"type": "string", "pattern": f"^(?:{'|'.join(patterns)})$"}]}


def _word_or_byte(words: Iterable[str]) -> Schema:
    digits: Schema = {"type": "string", "pattern": "^(?:0|[1-9][0-9]{0,2})$"}
    return {"anyOf": [_any_case(words), {"type": "integer", "minimum": 0, "maximum": 255}, digits]}


def _shared() -> Schema:
    return {
        "$schema": {"type": "string", "description": "Where editors find this schema; of no meaning here."},
        "note": {"type": "string", "maxLength": values.MAX_TEXT, "description": _DESCRIPTIONS["note"]},
        "aliases": _ref("aliases"),
        "blocklists": {
            "type": "array",
            "items": _ref("blocklist"),
            "maxItems": blocklists.MAX_LISTS,
            "description": "Addresses from files or URLs that are dropped before all rules.",
        },
        "respond": _ref("respond"),
        "tests": schema_tests.tests(_ref("test")),
    }


def _full() -> Schema:
    defaults: Schema = {
        direction.value: {"enum": _actions(direction), "default": action.value}
        for direction, action in DEFAULT_ACTIONS.items()
    }
    base: Schema = {
        key: {"type": "boolean", "default": True, "description": _BASE_DESCRIPTIONS[key]} for key in BASE_KEYS
    }
    rules: Schema = {"type": "array", "items": _ref("rule"), "description": "In order: the first that matches decides."}
    properties: Schema = {
        "version": {"const": VERSION, "description": "The version of this form."},
        "default": _object(defaults, "What happens to a connection that no rule matches."),
        "rules": rules,
        "base": _object(base, "Rules that are always there, before all others."),
        "ask": _ref("ask"),
        **_shared(),
    }
    return _object(properties, "The full form: ordered rules.", ["version"])


def _actions(direction: Direction | None = None) -> list[str]:
    """Those of connections in a direction: nobody is asked about forwarded ones."""
    return [each.value for each in values.ACTIONS if each is not Action.ASK or direction is not Direction.FORWARD]


def _ask() -> Schema:
    fields: dict[str, Schema] = {
        "timeout": {
            "anyOf": [
                {
                    "type": "number",
                    "minimum": asking.SHORTEST_TIMEOUT_S,
                    "maximum": asking.LONGEST_TIMEOUT_S,
                },
                {"type": "string", "pattern": f"^{asking.TIMEOUT_SHAPE}$", "examples": ["90s", "5m"]},
            ],
            "default": Ask().timeout_s,
        },
        "unattended": {"enum": [each.value for each in asking.UNATTENDED], "default": Ask().unattended.value},
    }
    properties: Schema = {key: {**field, "description": _ASK_DESCRIPTIONS[key]} for key, field in fields.items()}
    return _object(properties, 'How the action "ask" asks.')


def _simple() -> Schema:
    properties: Schema = {action: _ref("lists") for action in simple.ACTION_KEYS}
    order = ", ".join(f"{action} {key}" for action, key in simple.LISTS)
    description = f"The simple form: lists, in the order {order}; everything else is allowed."
    return _object({**properties, **_shared()}, description)


def _lists() -> Schema:
    kinds = {"ip": "address", "port": "port", "protocol": "protocol"}
    descriptions = {"ip": "The other end.", "port": "The service port.", "protocol": "Name or number."}
    properties: Schema = {}
    for key in simple.LIST_KEYS:
        item = _ref(kinds[key])
        properties[key] = {"anyOf": [item, {"type": "array", "items": item}], "description": descriptions[key]}
    return _object(properties, "What to block or allow.")


def _aliases() -> Schema:
    entry: Schema = {"anyOf": [_ref("address"), _ref("port")]}
    return {
        "type": "object",
        "description": f"Names for lists of addresses or of ports. Always there: {', '.join(BUILT_IN_ALIASES)}.",
        "propertyNames": {"pattern": r"^\D", "minLength": 1, "maxLength": MAX_ALIAS_NAME},
        "additionalProperties": _one_or_list(entry),
    }


def _blocklist() -> Schema:
    fields: dict[str, Schema] = {
        "name": {"type": "string", "pattern": f"^{blocklists.NAME_SHAPE}$"},
        "source": {
            "type": "string",
            "pattern": r"^(?:/[^/]|[Hh][Tt][Tt][Pp][Ss]?://[^/?#])",
            "maxLength": values.MAX_TEXT,
            "examples": ["/etc/pfw/addresses.txt", "https://www.spamhaus.org/drop/drop.txt"],
        },
        "refresh": {
            "type": "string",
            "pattern": f"^{blocklists.REFRESH_SHAPE}$",
            "default": blocklists.DEFAULT_REFRESH,
            "examples": ["30m", "12h", "7d"],
        },
        "direction": {"enum": list(blocklists.DIRECTIONS), "default": "both"},
        "enabled": {"type": "boolean", "default": True},
        "note": {"type": "string", "maxLength": values.MAX_TEXT},
    }
    properties: Schema = {key: {**field, "description": _BLOCKLIST_DESCRIPTIONS[key]} for key, field in fields.items()}
    description = "A list of addresses, one a line, that the kernel drops before it looks at any rule."
    return _object(properties, description, blocklists.REQUIRED)


def _rule() -> Schema:
    fields: dict[str, Schema] = {
        "name": {"type": "string", "minLength": 1, "maxLength": values.MAX_NAME},
        "action": {"enum": _actions()},
        "direction": {"enum": list(values.DIRECTIONS), "default": "both"},
        "from": _one_or_list(_ref("address")),
        "to": _one_or_list(_ref("address")),
        "remote": _one_or_list(_ref("address")),
        "protocol": _one_or_list(_ref("protocol")),
        "port": _one_or_list(_ref("port")),
        "from_port": _one_or_list(_ref("port")),
        "icmp_type": _one_or_list(_ref("icmp_type")),
        "interface": _one_or_list({"type": "string", "pattern": r"^[^*\s/]+\*?$", "maxLength": values.MAX_INTERFACE}),
        "app": _one_or_list(_ref("app")),
        "script": _one_or_list({"type": "string", "pattern": _WHOLE_PATH, "maxLength": values.MAX_TEXT}),
        "user": _one_or_list(_user()),
        "unit": _one_or_list({"type": "string", "minLength": 1, "maxLength": values.MAX_TEXT}),
        "schedule": _ref("schedule"),
        "limit": {"type": "string", "pattern": _limit_pattern(), "examples": ["6/minute", "10/second burst 20"]},
        "burst": {"type": "integer", "minimum": 1, "maximum": times.MAX_COUNT, "default": times.DEFAULT_BURST},
        "expires": {
            "type": "string",
            "pattern": times.EXPIRY_SHAPE,
            "examples": ["2026-12-01T18:00:00Z", "2026-12-01T18:00", "2026-12-01"],
        },
        "log": {"type": "boolean", "default": False},
        "enabled": {"type": "boolean", "default": True},
        "note": {"type": "string", "maxLength": values.MAX_TEXT},
    }
    properties: Schema = {key: {**field, "description": _DESCRIPTIONS[key]} for key, field in fields.items()}
    made = _object(properties, "A rule matches when every field that it has matches.", REQUIRED)
    made["dependentRequired"] = {"burst": ["limit"], "script": ["app"]}
    asked_in_vain: Schema = {"action": {"const": Action.ASK.value}, "direction": {"const": Direction.FORWARD.value}}
    made["not"] = {"properties": asked_in_vain, "required": list(asked_in_vain)}
    made["dependentSchemas"] = {"remote": {"not": {"anyOf": [{"required": ["from"]}, {"required": ["to"]}]}}}
    return made


def _app() -> Schema:
    path: Schema = {"type": "string", "maxLength": values.MAX_TEXT}
    fields: Schema = {
        "path": {**path, "pattern": _WHOLE_PATH, "description": "Path of the program's executable."},
        "sha256": {
            "type": "string",
            "pattern": f"^{programs.SHA256_SHAPE}$",
            "description": "What sha256sum prints of the file; another file at this path is another program.",
        },
    }
    pattern: Schema = {**path, "pattern": r"^/[^*]*\*?$", "examples": ["/usr/bin/firefox", "/opt/ide/*"]}
    return {"anyOf": [pattern, _object(fields, "A program by path and by what its file holds.", ["path"])]}


def _user() -> Schema:
    return {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": values.LAST_USER_ID},
            {"type": "string", "minLength": 1, "examples": ["alice", "1000", "group:wheel"]},
        ]
    }


def _limit_pattern() -> str:
    return f"^[0-9]+ ?/ ?(?:{'|'.join(times.PERIODS_S)})(?: burst [0-9]+)?$"


def _schedule() -> Schema:
    time_of_day = f"^{times.TIME_OF_DAY}$"
    properties: Schema = {
        "days": {**_one_or_list(_any_case((*times.DAYS, *times.FULL_DAYS))), "default": list(times.DAYS)},
        "from": {"type": "string", "pattern": time_of_day, "default": "00:00"},
        "until": {"type": "string", "pattern": f"{time_of_day}|^24:00$", "default": "24:00"},
    }
    made = _object(properties, "Local time. What runs past midnight belongs to the day on which it begins.")
    made["minProperties"] = 1
    return made


def _address() -> Schema:
    return {
        "type": "string",
        "minLength": 1,
        "description": "An address, a prefix, a range first-last or an alias; ! in front excludes.",
        "examples": ["192.0.2.1", "192.168.0.0/16", "10.0.0.5-10.0.0.9", "2001:db8::/32", *BUILT_IN_ALIASES],
    }


def _port() -> Schema:
    return {
        "description": "A port, a range first-last, a service name or an alias.",
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": LAST_PORT},
            {"type": "string", "minLength": 1, "examples": ["1000-2000", "ssh", "https"]},
        ],
    }


def _protocol() -> Schema:
    return {**_word_or_byte(values.PROTOCOL_WORDS), "description": "Name in any case, or number."}


def _icmp_type() -> Schema:
    return {**_word_or_byte(values.ICMP_TYPES), "description": "Name, or number of the type."}
