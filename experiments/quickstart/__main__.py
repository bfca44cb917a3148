"""`python -m experiments.quickstart`."""

import sys

from experiments.quickstart.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
