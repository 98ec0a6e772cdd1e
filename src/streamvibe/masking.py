"""Connection strings as people may see them. Apart from the settings, which not every worker loads."""

from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

MASK = "***"

_SECRET_PARTS = frozenset(
    {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
)


def holds_secret(value: str) -> bool:
    """Whether a PostgreSQL connection string has anything that `mask_url` masks."""
    try:
        return bool(
            _SECRET_PARTS & {name for name, part in conninfo_to_dict(value).items() if part is not None}
        )
    except psycopg.Error:
        return True


def mask_url(value: str) -> str:
    """Return a PostgreSQL connection string as a URL with every password replaced by ``***``."""
    try:
        parts = {name: str(part) for name, part in conninfo_to_dict(value).items() if part is not None}
    except psycopg.Error:
        return MASK  # it cannot be read, so nobody can tell which part of it is the password
    for name in _SECRET_PARTS & parts.keys():
        parts[name] = MASK
    user = quote(parts.pop("user", ""), safe="")
    if "password" in parts:
        user += ":" + parts.pop("password")
    host = ""
    if not parts.get("host", ",").startswith("/") and "," not in parts.get("host", ","):
        host = parts.pop("host")
        host = f"[{host}]" if ":" in host else host
        if "port" in parts:
            host += ":" + parts.pop("port")
    database = quote(parts.pop("dbname", ""), safe="")
    query = "&".join(f"{name}={quote(part, safe='/,*')}" for name, part in parts.items())
    return f"postgresql://{user + '@' if user else ''}{host}/{database}{'?' + query if query else ''}"
