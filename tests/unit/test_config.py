"""Settings: where they come from, what is refused, and that secrets do not show."""

import os
from pathlib import Path

import pytest

from streamvibe import config
from streamvibe.config import Address, PortRange, Settings
from streamvibe.errors import ConfigurationError
from streamvibe.masking import MASK, mask_url

SECRET = "s3cr3t-and-long"
URL = f"postgresql://app:{SECRET}@db:5432/app"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings in the environment, an empty working directory."""
    for name in [name for name in os.environ if name.startswith(("STREAMVIBE_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refused(**arguments: object) -> ConfigurationError:
    """The error of settings that cannot be used."""
    with pytest.raises(ConfigurationError) as caught:
        Settings(**arguments)
    assert SECRET not in str(caught.value) + repr(caught.value.__dict__)
    return caught.value


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without any setting the embedded database is used, in the user's data directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings()
    assert settings.database_url is None
    assert settings.home == tmp_path / ".local" / "share" / "streamvibe"
    assert settings.embedded_ports is None
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert Settings().home == Path("/data/streamvibe")


def test_argument_over_environment_over_file_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest source wins, setting by setting."""
    Path("streamvibe.toml").write_text('home = "/file"\nembedded_user = "file"\nembedded_ports = "7000"\n')
    monkeypatch.setenv("STREAMVIBE_HOME", "/environment")
    monkeypatch.setenv("STREAMVIBE_EMBEDDED_USER", "environment")
    settings = Settings(home="/argument")
    assert settings.home == Path("/argument")
    assert settings.embedded_user == "environment"
    assert settings.embedded_ports == PortRange(7000, 7000)
    assert settings.embedded_timeout_seconds == 60


def test_every_setting_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """STREAMVIBE_ and the setting's name in capitals sets it; empty means unset."""
    values = {
        "DATABASE_URL": URL,
        "REPLICA_URL": URL,
        "HOME": "/h",
        "JWT_SECRET": SECRET * 3,
        "YOUTUBE_API_KEY": SECRET,
        "EMBEDDED_PORTS": "5440-5449",
        "EMBEDDED_USER": "pg",
        "EMBEDDED_TIMEOUT_SECONDS": "5",
        "METRICS_ADDRESS": "[::1]:9187",
    }
    assert {name.lower() for name in values} == set(Settings.model_fields)
    for name, value in values.items():
        monkeypatch.setenv(f"STREAMVIBE_{name}", value)
        assert f"STREAMVIBE_{name}" in (config.__doc__ or "")
    settings = Settings()
    assert settings.database_url is not None and settings.database_url.get_secret_value() == URL
    assert settings.embedded_ports == PortRange(5440, 5449)
    assert settings.embedded_timeout_seconds == 5
    assert settings.metrics_address == Address("::1", 9187)
    monkeypatch.setenv("STREAMVIBE_DATABASE_URL", "")
    assert Settings().database_url is None


def test_the_file_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """STREAMVIBE_CONFIG names the file; then it has to be there, readable, TOML, and hold known settings."""
    path = tmp_path / "other.toml"
    monkeypatch.setenv("STREAMVIBE_CONFIG", str(path))
    error = refused()
    assert error.field == "STREAMVIBE_CONFIG" and error.received == str(path) and "not exist" in error.message
    path.write_text("home = ")
    assert "is not TOML" in refused().message
    path.write_text('hom = "/x"')
    error = refused()
    assert "hom" in error.message and "home" in (error.fix or "")
    path.write_text('home = "/x"')
    assert Settings().home == Path("/x")
    monkeypatch.setenv("STREAMVIBE_CONFIG", str(tmp_path))
    assert "cannot be read" in refused().message


def test_secrets_do_not_show() -> None:
    """Neither repr nor str of the settings holds a secret; connection strings show everything else."""
    settings = Settings(
        database_url=URL,
        replica_url=f"host=r password={SECRET}",
        jwt_secret=SECRET * 3,
        youtube_api_key=SECRET,
    )
    shown = repr(settings) + str(settings) + str(settings.model_dump())
    assert SECRET not in shown
    assert "postgresql://app:***@db:5432/app" in shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (URL, "postgresql://app:***@db:5432/app"),
        ("postgres://db/app", "postgresql://db/app"),
        (f"postgresql://a%40b:{SECRET}%40x@[::1]:5/d", "postgresql://a%40b:***@[::1]:5/d"),
        (f"postgresql://h/d?user=u&password={SECRET}", "postgresql://u:***@h/d"),
        (f"postgresql://h/d?pass%77ord={SECRET}&sslmode=require", "postgresql://:***@h/d?sslmode=require"),
        (f"postgresql://h/d?sslpassword={SECRET}", "postgresql://h/d?sslpassword=***"),
        (f"host=/run/pg user=u password='{SECRET} x' dbname=d", "postgresql://u:***@/d?host=/run/pg"),
        (f"postgresql://u:{SECRET}@h1:1,h2:2/d", "postgresql://u:***@/d?host=h1,h2&port=1,2"),
        (f"mysql://u:{SECRET}@h/d", MASK),
        (f"postgresql://u:{SECRET} {SECRET}@h/d", MASK),
    ],
)
def test_connection_strings_are_masked_in_every_form(value: str, shown: str) -> None:
    """Every form that libpq reads shows itself without passwords; what cannot be read shows nothing."""
    assert mask_url(value) == shown


@pytest.mark.parametrize(
    ("arguments", "field", "received"),
    [
        ({"database_url": f"mysql://u:{SECRET}@h/d"}, "database_url", MASK),
        ({"database_url": f"postgresql+psycopg://u:{SECRET}@h/d"}, "database_url", MASK),
        ({"replica_url": f"postgresql://u:{SECRET} x@h/d"}, "replica_url", MASK),
        ({"home": 5}, "home", "5"),
        ({"jwt_secret": SECRET}, "jwt_secret", MASK),
        ({"embedded_ports": "5440-"}, "embedded_ports", "'5440-'"),
        ({"embedded_ports": "80"}, "embedded_ports", "'80'"),
        ({"embedded_ports": "5449-5440"}, "embedded_ports", "'5449-5440'"),
        ({"embedded_ports": "65000-70000"}, "embedded_ports", "'65000-70000'"),
        ({"embedded_user": "root"}, "embedded_user", "'root'"),
        ({"embedded_user": "no; such"}, "embedded_user", "'no; such'"),
        ({"embedded_timeout_seconds": 0}, "embedded_timeout_seconds", "0"),
        ({"embedded_timeout_seconds": "soon"}, "embedded_timeout_seconds", "'soon'"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(
    arguments: dict[str, object], field: str, received: str
) -> None:
    """The error names the setting, its variable, the value received (a secret masked) and what to do."""
    error = refused(**arguments)
    assert (error.field, error.received) == (field, received)
    assert f"STREAMVIBE_{field.upper()}" in error.message
    assert error.fix
    assert error.exit_status == 2


def test_an_unknown_setting_is_refused() -> None:
    """A misspelt argument is named, with the settings there are."""
    error = refused(databse_url=URL)
    assert error.field == "databse_url" and "database_url" in (error.fix or "")


def test_settings_do_not_change() -> None:
    """The settings are one frozen object."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().home = Path("/elsewhere")  # type: ignore[misc]
