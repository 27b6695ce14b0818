"""Search for networks that are small, accurate and hard to fool."""

__version__ = "0.1.0"
