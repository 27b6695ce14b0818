from atmc_search.cli import main

main()
