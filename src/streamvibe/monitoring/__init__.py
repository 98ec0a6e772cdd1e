"""What an operator wants to know of the queue: one read service for the command line, metrics and tests."""

from streamvibe.monitoring.doctor import Finding, examine

__all__ = ["Finding", "examine"]
