"""What keeps the queue healthy by itself."""

from streamvibe.maintenance.duties import DUTIES, Duty
from streamvibe.maintenance.loop import Maintenance
from streamvibe.maintenance.schedule import check_schedule, parse_schedule

__all__ = ["DUTIES", "Duty", "Maintenance", "check_schedule", "parse_schedule"]
