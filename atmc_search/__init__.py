"""Search for networks that are small, accurate and hard to fool."""
