"""benchmarks.cleanup: each way removes every finished job and leaves the statistics right; medians are of rounds."""

from pathlib import Path

import pytest
from benchmarks.cleanup import WAYS, medians, one_round

from streamvibe.bench.databases import Server

JOBS = 2500


@pytest.mark.parametrize("way", WAYS)
def test_a_round(home: Path, way: str) -> None:
    """All jobs are gone and counted (a round checks it); steps are those of maintenance, each its own transaction."""
    alone = one_round(Server(), way, JOBS, watched=False)
    assert isinstance(alone["steps_ms"], dict)
    if way == "dropped leaf":
        assert {"old_partitions", "seal_partition", "drop_partition"} <= alone["steps_ms"].keys()
    else:
        # Two thousand at once, and one more call, which finds nothing.
        assert (list(alone["steps_ms"]), alone["transactions"]) == (["cleanup_old_jobs"], JOBS // 2000 + 2)
    beside = one_round(Server(), way, JOBS, watched=True)
    for found in (alone, beside):
        assert all(value >= 0 for value in found.values() if isinstance(value, float))
    assert {"total_ms", "others_longest_ms", "others_p50_undisturbed_ms"} <= beside.keys()


def test_medians() -> None:
    """Of each figure, and of each step, the middle one."""
    rounds = [{"total_ms": n, "steps_ms": {"seal": -n}} for n in (5, 1, 3)]
    assert medians(rounds) == {"total_ms": 3, "steps_ms": {"seal": -3}}
