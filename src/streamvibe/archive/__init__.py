"""What leaves the queue is kept as Parquet, can be asked, and users can be erased from it.

Importing this needs none of the packages of the extra ``archive``.
"""

from streamvibe.archive.duty import archive_duty
from streamvibe.archive.erase import Erased, erase_user
from streamvibe.archive.extra import require_packages

__all__ = ["Erased", "archive_duty", "erase_user", "require_packages"]
