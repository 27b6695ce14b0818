"""What `chaos.py` runs and how it counts."""
