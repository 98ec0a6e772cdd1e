"""Finding the job types of the user's own application by name."""

import importlib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from streamvibe.errors import ConfigurationError, StreamVibeError
from streamvibe.jobtype import JobType

_AS_IN_AN_IMPORT = "Name it as in an import, from the directory where that import works"


def load_job_types(name: str) -> list[JobType[Any, Any]]:
    """The job types of ``package.module`` (all it holds) or ``package.module:attribute`` (one, or a list).

    The working directory is looked in first, as ``python -m`` does. Raises ConfigurationError.
    """
    module_name, _, attribute = name.partition(":")
    _check_name(module_name, name)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _import(module_name, name)
    if not attribute:
        found: object = list(
            {id(item): item for item in vars(module).values() if isinstance(item, JobType)}.values()
        )
    elif hasattr(module, attribute):
        found = getattr(module, attribute)
    else:
        raise _error(f"the module {module_name} has no {attribute}", name, "Check the name after the colon")
    job_types = [found] if isinstance(found, JobType) else list(found) if isinstance(found, Iterable) else []
    if not job_types or not all(isinstance(item, JobType) for item in job_types):
        raise _error(
            "no job types are there",
            name,
            "Name a module that declares some with @job_type, or a list of them: myapp.jobs:job_types",
        )
    return job_types


def _check_name(module_name: str, given: str) -> None:
    if "/" in module_name or module_name.endswith(".py"):
        parts = [part for part in Path(module_name.removesuffix(".py")).parts if part not in ("/", "..")]
        raise _error(
            "name a module, not a file", given, f"{_AS_IN_AN_IMPORT}: {'.'.join(parts) or 'myapp.jobs'}"
        )
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise _error("that is not a module's name", given, f"{_AS_IN_AN_IMPORT}: myapp.jobs")


def _import(module_name: str, given: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            package, _, last = module_name.rpartition(".")
            inside = hasattr(sys.modules.get(package), last)
            fix = (
                f"With a colon before what is inside of a module: {package}:{last}"
                if inside
                else f"{_AS_IN_AN_IMPORT}: myapp.jobs"
            )
            raise _error(f"there is no module {error.name}", given, fix) from error
        raise _broken(module_name, given, error) from error
    except StreamVibeError as error:
        broken = _broken(module_name, given, error)
        broken.field, broken.received, broken.fix = error.field, error.received, error.fix
        raise broken from error
    except (Exception, SystemExit) as error:  # whatever the application's own code raises
        raise _broken(module_name, given, error) from error


def _broken(module_name: str, given: str, error: BaseException) -> ConfigurationError:
    words = error.message if isinstance(error, StreamVibeError) else str(error)
    return _error(
        f"the module {module_name} could not be imported: {type(error).__name__}: "
        f"{' '.join(words.split())} at {_place(error)}",
        given,
        f'Mend it, until this works: python -c "import {module_name}"',
    )


def _place(error: BaseException) -> str:
    """The file and line of the application that raised, or that called what did."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    here = str(Path.cwd())
    own = [
        frame
        for frame in frames
        if frame.filename.startswith(here) and "site-packages" not in Path(frame.filename).parts
    ]
    # In a checkout, what is here includes this module itself, which is the first of all frames.
    last = own[-1] if own and own[-1].filename != __file__ else frames[-1]
    return f"{last.filename}:{last.lineno}"


def _error(message: str, given: str, fix: str) -> ConfigurationError:
    return ConfigurationError(message, field="--app", received=given, fix=fix)
