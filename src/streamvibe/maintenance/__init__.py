"""What keeps the queue healthy by itself."""

from streamvibe.maintenance.loop import Duty, Maintenance

__all__ = ["Duty", "Maintenance"]
