"""`python -m apps.recipes` is `kerascnn recipes`."""

import sys

from apps.cli import main

main(["recipes", *sys.argv[1:]])
