"""What the examples share on the command line: options, and errors as one line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


def run(train: Callable[..., object], epochs: int) -> NoReturn:
    """Call `train(out, epochs, seed, overwrite)` with the command's options; an error is one line and exit code 2."""
    module = sys.modules[train.__module__]
    parser = argparse.ArgumentParser(description=module.__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the picture to write")
    parser.add_argument("--epochs", type=int, default=epochs, help=f"passes over the pictures (default {epochs})")
    parser.add_argument("--seed", type=int, default=0, help="for the same run again (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.png if it exists")
    options = vars(parser.parse_args())
    try:
        if options["epochs"] < 1:
            raise ValueError(f"`--epochs` must be at least 1. Received: {options['epochs']}.")
        train(**options)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
