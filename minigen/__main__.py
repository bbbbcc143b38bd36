"""`python -m minigen` runs the command line, as `minigen` does."""

import sys

from minigen.app.cli import main

sys.exit(main())
