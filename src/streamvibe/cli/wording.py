"""The errors of Python in the words of the command line: options for parameters, commands for methods.

Known by code and field, never by message.
"""

import re

from streamvibe.config import Settings
from streamvibe.errors import ConfigurationError, DatabaseUnreachable, JobFailed, StreamVibeError
from streamvibe.remedies import parameter

_OPTIONS = {
    "bucket": "--bucket",
    "cursor": "--cursor",
    "discard": "--discard",
    "duty": "DUTY",
    "job_id": "JOB_ID",
    "job_ids": "JOB_IDS",
    "idempotency_key": "--idempotency-key",
    "level": "--level",
    "limit": "--limit",
    "metadata": "--metadata",
    "offset": "--page",
    "page": "--page",
    "order_by": "--order-by",
    "order_dir": "--order-dir",
    "params": "--params",
    "priority": "--priority",
    "result": "--result",
    "schedule": "--schedule",
    "scheduled_for": "--at",
    "search": "WORDS",
    "since": "--since",
    "status": "--status",
    "time_zone": "--time-zone",
    "timeout": "--timeout",
    "until": "--until",
    "user_id": "--user",
}

_REMEDIES = {
    (
        "SV001",
        "duty",
    ): "See which there are: `streamvibe maintain status`. They become known when maintenance first runs",
    ("SV001", "search"): "Use at least one word that is not as common as the or and, or leave WORDS out",
    ("SV001", "metadata"): """Name a key and its value, as in --metadata '{"channel": "UC1"}'""",
    (
        "SV001",
        "params",
    ): """Name a key and its value, as in --params '{"channel": "UC1"}'; `streamvibe jobs list` lists all""",
    ("SV001", "discard"): "Archive them first: `streamvibe archive run`; or lose them: add --discard",
    ("SV001", "level"): "Use debug, info, warning or error, or leave --level out for all",
    ("SV001", "scheduled_for"): "Use a time before the year 9999, or leave --at out for now",
    (
        "SV001",
        "status",
    ): "Use pending, processing, completed, failed or cancelled, or leave --status out for all",
    (
        "SV002",
        "job_type",
    ): "Check the spelling, or start a worker that declares it: streamvibe worker --app yourapp.jobs",
    (
        "SV014",
        "cursor",
    ): "Pass the cursor that the page before printed, with the same options; leave --cursor out for the first page",
    ("SV015", "offset"): "Go through the pages by cursor: leave --page out, then pass the --cursor it prints",
}


def on_the_command_line(error: StreamVibeError) -> StreamVibeError:
    """The same error, changed in place: the field is an option's name, the fix something one can type."""
    field = error.field
    if isinstance(error, DatabaseUnreachable) and field == "database_url":
        error.fix = (
            "Start the embedded database: `streamvibe db start`"
            if Settings().database_url is None
            else "Check that it runs, and that STREAMVIBE_DATABASE_URL (or --database-url) is right"
        )
    # A setting, and a job that was waited for, are no parameter.
    if field is None or isinstance(error, ConfigurationError | JobFailed):
        return error
    if error.sqlstate is not None:
        error.fix = _REMEDIES.get((error.sqlstate, parameter(field)), error.fix)
    # One parameter of SQL is two options.
    option = f"--{error.received}" if field == "this_is" else _OPTIONS.get(re.sub(r"\[\d+\]$", "", field))
    if option is not None:
        error.field = option
        # A message that speaks of the parameter begins with it.
        first, _, rest = error.message.partition(" ")
        if first == field:
            error.message = f"{option} {rest}"
        if field == "until":
            error.message = re.sub(r"\bsince$", "--since", error.message)
    return error
