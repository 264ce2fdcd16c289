"""Download the source of a replay set (a pre-training set such as MPtrj) and check that it is the right file."""

import argparse
import re
from pathlib import Path

from hopline import console, downloads, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="where it is: https://, http:// or file://")
    parser.add_argument("--sha256", required=True, help="SHA-256 of its content, 64 hexadecimal digits")
    parser.add_argument("--source", type=Path, required=True, help="file to write; a right one is kept")
    args = parser.parse_args(argv)
    if not re.fullmatch("[0-9a-fA-F]{64}", args.sha256):
        raise console.InputError(f"--sha256 must be 64 hexadecimal digits, got {args.sha256!r}")
    return args


def main() -> None:
    """Download unless it is there, check, and leave the trail."""
    args = parse()
    run = provenance.start(vars(args), [])
    new = downloads.fetch(args.url, args.source, sha256=args.sha256)
    if new:
        run.write_beside(args.source)
    console.say(f"{args.source}: {args.source.stat().st_size} bytes, {'fetched' if new else 'there already'}")


if __name__ == "__main__":
    console.run(main)
