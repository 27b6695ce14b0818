"""`python -m atmc_search` is the command `atmc-search`."""

from atmc_search.cli import main

if __name__ == "__main__":
    main()
