"""Claims jobs, runs their handlers, writes what they did."""

from streamvibe.worker.worker import Worker

__all__ = ["Worker"]
