"""`python -m minigen` is the command `minigen`."""

import sys

from minigen.cli import main

sys.exit(main())
