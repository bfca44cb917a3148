"""`python -m spartax.cli`."""

import sys

from spartax.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
