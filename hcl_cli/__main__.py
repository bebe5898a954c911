"""`python -m hcl_cli` is the `hcl` program."""

from hcl_cli.cli.app import main

if __name__ == "__main__":
    main()
