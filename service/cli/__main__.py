"""`python -m service.cli` is the command `mbunet`."""

import sys

from service import cli

sys.exit(cli.main())
