"""`python -m training` is `limbeck-train`."""

import sys

from training.cli import main

sys.exit(main())
