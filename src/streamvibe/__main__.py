"""``python -m streamvibe``: the command."""

from streamvibe.cli.main import main

if __name__ == "__main__":
    main()
