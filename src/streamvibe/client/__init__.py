"""What an application asks the queue with: ``Client`` in asynchronous code, ``SyncClient`` in any other."""

from streamvibe.client.asynchronous import Client
from streamvibe.client.synchronous import SyncClient

__all__ = ["Client", "SyncClient"]
