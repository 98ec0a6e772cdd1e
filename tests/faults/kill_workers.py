"""Kill workers with SIGKILL in the middle of a queue, many times, and check every promise after each run.

python tests/faults/kill_workers.py --runs 100 --json tests/faults/results/kill_workers_100.json
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.trial import Report, Trial
from tests.support.databases import TEMPLATE, make_template, new_database
from tests.support.servers import Server, pg18_bin, running

#: Every so many runs, two of the jobs kill their own process.
KILLERS_EVERY = 4


def run(server: Server, seed: int, jobs: int, longest: float = 0.4) -> Report:
    """One run on a database of its own: 1 to 3 kills, and in every fourth run two jobs that kill their process."""
    with new_database(server, TEMPLATE) as database:
        killers = 2 if seed % KILLERS_EVERY == 0 else 0
        return Trial(database, seed, jobs, killers=killers, longest=longest).run(
            kills=random.Random(seed).randint(1, 3)
        )


def summary(reports: Sequence[Report]) -> str:
    """The runs as a table."""
    kills = [kill for report in reports for kill in report.kills]
    landed = Counter(kill.phase for kill in kills)
    lines = [
        ("runs", len(reports)),
        ("jobs", sum(report.jobs for report in reports)),
        ("kills", len(kills)),
        *((f"  while: {phase}", count) for phase, count in sorted(landed.items())),
        ("kills that hit several jobs", sum(kill.held > 1 for kill in kills)),
        ("kills that hit one job", sum(kill.held == 1 for kill in kills)),
        ("kills that hit no job", sum(kill.held == 0 for kill in kills)),
        ("jobs hit", sum(report.jobs_hit for report in reports)),
        ("handlers started", sum(report.starts for report in reports)),
        ("jobs started again after a kill", sum(report.jobs_started_again for report in reports)),
        ("most starts of one job", max(report.most_starts for report in reports)),
        ("attempts counted as crashes", sum(report.crash_attempts for report in reports)),
        ("jobs failed for killing their process", sum(report.failed_by_crash for report in reports)),
        ("calls tried under stale tokens", sum(report.stale_tried for report in reports)),
        ("  of which accepted", sum(report.stale_accepted for report in reports)),
        ("violations", sum(len(report.violations) for report in reports)),
    ]
    return "\n".join(f"{name:<40}{value:>8}" for name, value in lines)


def main() -> int:
    """0 when every promise held in every run; 130 when Ctrl-C ended it, with what the finished ones showed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next has the next")
    parser.add_argument("--json", type=Path, help="write every run's figures to this file")
    options = parser.parse_args()
    reports: list[Report] = []
    began = time.monotonic()
    interrupted = False
    with running("faults", pg18_bin()) as server:
        make_template(server)
        try:
            for seed in range(options.seed, options.seed + options.runs):
                report = run(server, seed, options.jobs)
                reports.append(report)
                phases = ", ".join(f"{kill.phase} ({kill.held} held)" for kill in report.kills)
                print(f"run {len(reports)}: {report.seconds:.1f} s, killed at {phases}", flush=True)
                for violation in report.violations:
                    print(f"  VIOLATION {violation}", flush=True)
        except KeyboardInterrupt:
            interrupted = True
    print(f"\n{summary(reports)}\n{'seconds':<40}{time.monotonic() - began:>8.0f}")
    if options.json:
        document = {"summary": summary(reports).splitlines(), "runs": [asdict(report) for report in reports]}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if any(report.violations for report in reports):
        return 1
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
