"""`python -m minigen` is the command `minigen`."""

import sys

from minigen.app.cli import main

sys.exit(main())
