"""A YouTube Data API v3 on this machine, for the demo and the tests: real HTTP and packaged channels."""

from streamvibe.creators.local_youtube.dataset import ChannelData, Dataset, VideoData, load_dataset
from streamvibe.creators.local_youtube.server import Answer, Call, LocalYouTube

__all__ = ["Answer", "Call", "ChannelData", "Dataset", "LocalYouTube", "VideoData", "load_dataset"]
