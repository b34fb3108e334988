"""``python -m spoold``."""

from spoold.cli import main

if __name__ == "__main__":
    main()
