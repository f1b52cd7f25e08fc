"""`python -m sepcli`, and the entry point of the `sepcli` script."""

from sepcli.cli import main

if __name__ == "__main__":
    main()
