"""Finding the job types of the user's own application by name."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from streamvibe.errors import ConfigurationError
from streamvibe.jobtype import JobType


def load_job_types(name: str) -> list[JobType[Any, Any]]:
    """The job types of ``package.module`` (all it holds) or ``package.module:attribute`` (one, or a list).

    The working directory is looked in first, as ``python -m`` does. Raises ConfigurationError.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"there is no module {error.name}",
            field="--app",
            received=name,
            fix="Name it as in an import, from the directory where that import works: myapp.jobs",
        ) from error
    if not attribute:
        found: object = list(
            {id(item): item for item in vars(module).values() if isinstance(item, JobType)}.values()
        )
    elif hasattr(module, attribute):
        found = getattr(module, attribute)
    else:
        raise ConfigurationError(
            f"{module_name} has no {attribute}",
            field="--app",
            received=name,
            fix="Check the name after the colon.",
        )
    job_types = [found] if isinstance(found, JobType) else list(found) if isinstance(found, Iterable) else []
    if not job_types or not all(isinstance(item, JobType) for item in job_types):
        raise ConfigurationError(
            "no job types are there",
            field="--app",
            received=name,
            fix="Name a module that declares some with @job_type, or a list of them: myapp.jobs:job_types",
        )
    return job_types
