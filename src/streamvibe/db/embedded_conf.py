"""The embedded server's configuration files, written anew at every start (ALTER SYSTEM survives)."""

import contextlib
import os
from pathlib import Path

from streamvibe.db.embedded_programs import Account

DATABASE = "streamvibe"
SUPERUSER = "postgres"
SOCKET_PORT = 5432
"""Names the socket where there is no TCP port."""


def server_settings(socket_directory: str, tcp_port: int | None) -> str:
    """postgresql.conf. What differs from PostgreSQL's defaults has its reason beside it."""
    return f"""\
# Written by StreamVibe at every start. To change a setting, use ALTER SYSTEM: it wins over this file.
listen_addresses = '{"127.0.0.1" if tcp_port else ""}'
port = {tcp_port or SOCKET_PORT}
unix_socket_directories = '{socket_directory}'
unix_socket_permissions = 0700
cluster_name = 'streamvibe'

max_connections = 450                     # two hundred gated callers, workers, and room for tools
shared_preload_libraries = 'pg_stat_statements'
shared_buffers = '{shared_buffers_mib()}MB'
effective_cache_size = '{3 * shared_buffers_mib()}MB'
maintenance_work_mem = '128MB'
random_page_cost = 1.1                    # solid-state disks

fsync = on
synchronous_commit = on
full_page_writes = on
max_wal_size = '2GB'                      # checkpoints by time, not by volume, under bulk inserts
min_wal_size = '128MB'
checkpoint_timeout = '10min'
wal_compression = on

password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
datestyle = 'iso, ymd'
lc_messages = 'C'
default_text_search_config = 'pg_catalog.english'

logging_collector = on
log_directory = 'log'
log_filename = 'postgresql-%Y%m%d-%H%M%S.log'
log_file_mode = 0600
log_rotation_age = 0
log_rotation_size = '10MB'
log_line_prefix = '%m [%p] %q%u@%d %a '
"""


def shared_buffers_mib() -> int:
    """A quarter of the memory, as PostgreSQL's documentation advises: from 128 MiB to 2 GiB.

    Below that inserts into the indexes of some hundred thousand jobs wait for reads. Memory that is never used costs
    nothing.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no such control group, or one without a limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return max(128, min(2048, memory // 4 // 1024**2))


def client_authentication(tcp_port: int | None) -> str:
    """pg_hba.conf: the owner through the socket, known by the kernel; over TCP only with the password."""
    lines = ["# Written by StreamVibe at every start.", "local all all peer map=owner"]
    lines.append("local replication all peer map=owner")
    if tcp_port:
        lines.append("host all all 127.0.0.1/32 scram-sha-256")
    return "\n".join(lines) + "\n"


def owner_map(owner: str) -> str:
    """pg_ident.conf: the system user ``owner`` may be any database role, everybody else none."""
    return f'# Written by StreamVibe at every start.\nowner "{owner}" all\n'


def write(directory: int, name: str, text: str, account: Account) -> None:
    """Put a file, whole or not at all, into an open directory that belongs to ``account``."""
    work = f"{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(work, dir_fd=directory)
    # Exclusive and by descriptor: as root we write where the less trusted server user may put links.
    fd = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        if not account.is_caller:
            os.fchown(fd, account.uid, account.gid)
        file.write(text)
        file.flush()
        os.fsync(fd)
    os.rename(work, name, src_dir_fd=directory, dst_dir_fd=directory)
