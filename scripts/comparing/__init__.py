"""The parts of scripts/compare_methods.py: plan (what is compared), work (training, measuring), tables, figure."""
