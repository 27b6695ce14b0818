"""What `scripts/fuzz_artifact.py` is made of: files by hand, a corpus, mutations, a verdict on each, and bombs."""
