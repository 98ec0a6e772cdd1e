"""Settings: one frozen object, and the only place that reads the environment.

An argument wins over an environment variable, that over the configuration file, that over the default. The
file is TOML with the settings' names at its top level: the file named by STREAMVIBE_CONFIG, else
``streamvibe.toml`` in the working directory, else none.

    setting                    environment                           default
    database_url               STREAMVIBE_DATABASE_URL               none: the embedded database in ``home``
    replica_url                STREAMVIBE_REPLICA_URL                none: reads go to the database itself
    home                       STREAMVIBE_HOME                       ~/.local/share/streamvibe
    jwt_secret                 STREAMVIBE_JWT_SECRET                 none
    youtube_api_key            STREAMVIBE_YOUTUBE_API_KEY            none
    embedded_ports             STREAMVIBE_EMBEDDED_PORTS             none: a private socket, no TCP port
    embedded_user              STREAMVIBE_EMBEDDED_USER              streamvibe (only when root starts it)
    embedded_timeout_seconds   STREAMVIBE_EMBEDDED_TIMEOUT_SECONDS   60
    metrics_address            STREAMVIBE_METRICS_ADDRESS            none: no metrics are served

XDG_DATA_HOME, where it is set, takes the place of ~/.local/share. Secrets never show: their ``repr`` is
masked, connection strings show all but their passwords.
"""

import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from streamvibe.errors import ConfigurationError
from streamvibe.masking import MASK, mask_url

ENV_PREFIX = "STREAMVIBE_"
CONFIG_FILE = "streamvibe.toml"
LOOPBACK = "127.0.0.1"


class DatabaseUrl(SecretStr):
    """A PostgreSQL connection string (URL or ``key=value``) that shows itself without its passwords."""

    def _display(self) -> str:
        return mask_url(self.get_secret_value())


class PortRange(NamedTuple):
    """TCP ports ``first`` to ``last``, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


class Address(NamedTuple):
    """Where a server listens: a host's name or IP address, and a TCP port (0: a free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _parse_address(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(?:(?:\[([0-9a-fA-F:.%]+)\]|([^\s:\[\]/]+)):)?(\d{1,5})", value.strip())
    if match is None or int(match[3]) > 65535:
        raise ValueError("must be a port, or a host and a port")
    return Address(match[1] or match[2] or LOOPBACK, int(match[3]))


def _parse_ports(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", value)
    if match is None:
        raise ValueError("must be a port or a range of ports")
    first = int(match[1])
    return PortRange(first, int(match[2]) if match[2] is not None else first)


_URL_FIX = (
    "Write it like postgresql://user:password@host:5432/database, with special characters percent-encoded"
)
_FIXES = {
    "database_url": _URL_FIX,
    "replica_url": _URL_FIX,
    "home": "Name a directory that you own, or leave it unset",
    "jwt_secret": "Use 32 random characters or more, for example the output of `openssl rand -hex 32`",
    "embedded_ports": "Write a range like 5440-5449, or leave it unset for the private socket alone",
    "embedded_user": "Name a system user other than root, or leave it unset",
    "embedded_timeout_seconds": "Give a number of seconds from 1 to 3600",
    "metrics_address": "Write a port such as 9187 (for 127.0.0.1 alone), or HOST:PORT such as 0.0.0.0:9187",
}


def _default_home() -> Path:
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data.startswith("/") else Path("~/.local/share")) / "streamvibe"


class Settings(BaseSettings):
    """Everything that can be set. ``Settings()`` reads the environment and the file; arguments win over both.

    Raises ConfigurationError naming the setting, the value received and the fix.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    database_url: DatabaseUrl | None = None
    """The database to use; set, the embedded one is never started, but by `bench`."""
    replica_url: DatabaseUrl | None = None
    """A read replica for lists, statistics and searches that may lag."""
    home: Path = Field(default_factory=_default_home, validate_default=True)
    """Where the embedded database lives; absolute."""
    jwt_secret: SecretStr | None = Field(default=None, min_length=32)
    """Verifies the tokens of the HTTP API."""
    youtube_api_key: SecretStr | None = None
    """YouTube Data API v3; unset, the demo's local server answers."""
    embedded_ports: Annotated[PortRange | None, NoDecode, BeforeValidator(_parse_ports)] = None
    """Also open the embedded database on 127.0.0.1, on the first free port of these (password needed)."""
    embedded_user: str = Field(default="streamvibe", pattern=r"^[a-z_][a-z0-9_-]{0,31}$")
    """The system user the embedded server runs as when root starts it; made if missing."""
    embedded_timeout_seconds: float = Field(default=60, ge=1, le=3600)
    """How long to wait for the embedded server to start or stop."""
    metrics_address: Annotated[Address | None, NoDecode, BeforeValidator(_parse_address)] = None
    """Where `worker`, `up` and `maintain run` serve /metrics: a port of 127.0.0.1, or HOST:PORT."""

    def __init__(self, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            raise _configuration_error(error.errors()[0], arguments) from None

    @field_validator("database_url", "replica_url")
    @classmethod
    def _readable_url(cls, value: DatabaseUrl | None) -> DatabaseUrl | None:
        if value is not None:
            try:
                conninfo_to_dict(value.get_secret_value())
            except psycopg.Error:
                # libpq's own words may quote the password
                raise ValueError("is not a PostgreSQL connection string") from None
        return value

    @field_validator("home")
    @classmethod
    def _absolute_home(cls, value: Path) -> Path:
        try:
            return Path(os.path.abspath(value.expanduser()))  # noqa: PTH100 - resolve() would follow links
        except RuntimeError:
            raise ValueError("cannot be found: this user has no home directory") from None

    @field_validator("embedded_ports")
    @classmethod
    def _ordered_ports(cls, value: PortRange | None) -> PortRange | None:
        if value is not None and not 1024 <= value.first <= value.last <= 65535:
            raise ValueError("must be ports from 1024 to 65535, the lower one first")
        return value

    @field_validator("embedded_user")
    @classmethod
    def _not_root(cls, value: str) -> str:
        if value == "root":
            raise ValueError("cannot be root: PostgreSQL refuses to run as root")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitSettingsSource(settings_cls, _read_file())


def unknown_variables() -> dict[str, str | None]:
    """The variables of the environment that begin like a setting of ours and are none, and which may be meant."""
    known = {ENV_PREFIX + name.upper() for name in (*Settings.model_fields, "CONFIG")}
    unknown = sorted(
        name
        for name in os.environ
        if name.startswith(ENV_PREFIX) and name not in known and not name.startswith(ENV_PREFIX + "TEST_")
    )
    # What all begin with likens any two of them.
    ends = sorted(name.removeprefix(ENV_PREFIX) for name in known)
    close = {name: get_close_matches(name.removeprefix(ENV_PREFIX), ends, 1) for name in unknown}
    return {name: ENV_PREFIX + found[0] if found else None for name, found in close.items()}


def _read_file() -> dict[str, Any]:
    named = os.environ.get(ENV_PREFIX + "CONFIG")
    path = Path(named or CONFIG_FILE)
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        if not named:
            return {}
        problem, fix = "does not exist", "Correct STREAMVIBE_CONFIG, or unset it"
    except OSError as error:
        problem, fix = f"cannot be read ({error.strerror})", f"Make {path} a readable file"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problem, fix = f"is not TOML: {error}", f"Correct {path}"
    else:
        unknown = sorted(values.keys() - Settings.model_fields.keys())
        if not unknown:
            return values
        problem = f"has an unknown setting, {unknown[0]}"
        fix = "Use one of " + ", ".join(sorted(Settings.model_fields))
    raise ConfigurationError(
        f"The configuration file {problem}", field=ENV_PREFIX + "CONFIG", received=str(path), fix=fix
    )


def _configuration_error(details: ErrorDetails, arguments: dict[str, Any]) -> ConfigurationError:
    name = str(details["loc"][0]) if details["loc"] else "settings"
    if name not in Settings.model_fields:
        return ConfigurationError(
            f"There is no setting {name}",
            field=name,
            fix="Use one of " + ", ".join(sorted(Settings.model_fields)),
        )
    # Our own checks say "must be ..." or "is not ...", pydantic's are sentences.
    ours = details["msg"].removeprefix("Value error, ")
    problem = ours if ours != details["msg"] else f"is not valid: {ours}"
    return ConfigurationError(
        f"The setting {name} ({ENV_PREFIX}{name.upper()}) {problem}",
        field=name,
        received=_shown(name, details["input"]),
        fix=_FIXES.get(name),
    )


def _shown(name: str, value: object) -> str:
    annotation = str(Settings.model_fields[name].annotation)
    if "DatabaseUrl" in annotation:
        return mask_url(value) if isinstance(value, str) else MASK
    return MASK if "SecretStr" in annotation else repr(value)
