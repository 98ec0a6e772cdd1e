"""The packages of the extra ``archive``, which everything else does without."""

import importlib

from streamvibe.errors import ConfigurationError

PACKAGES = ("pyarrow", "obstore", "fsspec", "duckdb")


def require_packages() -> None:
    """Raises ConfigurationError naming the first package that is missing, and what to install."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigurationError(
                "The archive needs a package that is not installed here",
                field="archive",
                received=name,
                fix="Run `pip install 'streamvibe[archive]'`",
            ) from error
