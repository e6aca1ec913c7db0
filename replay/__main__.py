"""`python -m replay` is the command `replay`."""

from replay.cli import main

if __name__ == "__main__":
    # Worker processes import this module anew, under another name.
    main()
