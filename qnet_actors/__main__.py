"""`python -m qnet_actors` is the `qnet` command."""

from qnet_actors.cli import main

if __name__ == "__main__":
    main()
