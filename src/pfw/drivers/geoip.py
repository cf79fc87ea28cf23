"""The countries of addresses: a database in MaxMind's format, where there is one, and the package that reads it.

Neither comes with pfw: databases of that kind are not to be handed on, or soon out of date. The package `maxminddb` is
imported when a country is asked for and not before.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

FOLDERS = (Path("/usr/share/GeoIP"), Path("/var/lib/GeoIP"), Path("/usr/local/share/GeoIP"))
_NAMES = ("*Country*.mmdb", "dbip-country*.mmdb", "*City*.mmdb")
_CODE_CHARACTERS = 16

NO_PACKAGE = "countries need the package maxminddb; install it: pip install 'pfw[geoip]'"
NO_DATABASE = (
    "countries need a database of addresses in MaxMind's format (GeoLite2-Country.mmdb or the like) in "
    f"{FOLDERS[0]} or {FOLDERS[1]}, or --geoip FILE"
)


class GeoipError(Exception):
    """Countries cannot be told; the text says what to do."""


def found(folders: Iterable[Path] = FOLDERS) -> Path | None:
    """The database that is there; the newest where there are several of a kind."""
    for name in _NAMES:
        for folder in folders:
            paths = sorted(
                (path for path in folder.glob(name) if path.is_file()), key=lambda path: path.stat().st_mtime
            )
            if paths:
                return paths[-1]
    return None


def countries(path: Path, addresses: Iterable[bytes]) -> dict[bytes, str | None]:
    """The countries of addresses, by their codes, None where the database does not tell. Raises GeoipError."""
    try:
        import maxminddb
    except ImportError:
        raise GeoipError(NO_PACKAGE) from None
    try:
        with closing(maxminddb.open_database(path)) as database:
            sizes = (4, 16) if database.metadata().ip_version == 6 else (4,)
            return {each: _country(database.get(ip_address(each))) for each in addresses if len(each) in sizes}
    except OSError as error:
        raise GeoipError(f"{path}: {error.strerror or error}") from None
    except (ValueError, UnicodeError, maxminddb.InvalidDatabaseError):
        raise GeoipError(f"{path}: is not a database in MaxMind's format, or a broken one") from None


def _country(record: object) -> str | None:
    """As MaxMind's and DB-IP's databases have it, or in one word as others do."""
    if not isinstance(record, dict):
        return None
    for name in ("country", "registered_country", "country_code"):
        value = record.get(name)
        code = value.get("iso_code") if isinstance(value, dict) else value
        if isinstance(code, str) and code:
            return code[:_CODE_CHARACTERS]
    return None
