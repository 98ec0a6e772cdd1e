"""What the tests of the platform share."""

from dataclasses import dataclass, field
from typing import NoReturn
from uuid import UUID, uuid4

from hypothesis import HealthCheck, settings

from streamvibe import JobCancelled

# No bound on time: these tests run on busy machines.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass
class RecordingContext:
    """A handler's context that keeps what the handler says; `cancel_after` pages it is cancelled."""

    cancel_after: int | None = None
    job_id: UUID = field(default_factory=uuid4)
    user_id: UUID = field(default_factory=uuid4)
    job_type: str = "sync_youtube"
    attempt: int = 1
    max_attempts: int = 3
    logs: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)
    steps: list[tuple[float, str | None]] = field(default_factory=list)

    @property
    def cancelled(self) -> bool:
        return self.cancel_after is not None and len(self.steps) >= self.cancel_after

    @property
    def connection(self) -> NoReturn:
        raise NotImplementedError

    def log(self, message: str, /, *, level: str = "info", **metadata: object) -> None:
        self.logs.append((level, message, metadata))

    def progress(self, fraction: float, message: str | None = None) -> None:
        self.steps.append((fraction, message))

    def raise_if_cancelled(self) -> None:
        if self.cancelled:
            raise JobCancelled()

    def warnings(self) -> list[str]:
        return [message for level, message, _ in self.logs if level == "warning"]
