"""Download a MACE foundation model by name from where mace-torch says it is; a file that is there already is kept."""

import argparse
from pathlib import Path

from hopline import console, downloads, files, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, help="name that mace-torch knows, e.g. medium-mpa-0")
    parser.add_argument("--sha256", help="SHA-256 of the file, 64 hexadecimal digits; another one is refused")
    parser.add_argument("--foundation", type=Path, required=True, help="file to write; one there is kept")
    return parser.parse_args(argv)


def main() -> None:
    """Download unless it is there, and say what it is."""
    args = parse()
    run = provenance.start(vars(args), [])
    from hopline.potentials import mace

    address = mace.foundation_address(args.weights)
    if args.weights in mace.ACADEMIC:
        console.say(
            f"{args.weights} is under the Academic Software License, which permits no commercial use: "
            "https://github.com/gabor1/ASL; to use it is to accept its terms"
        )
    new = downloads.fetch(address, args.foundation, sha256=args.sha256)
    if new:
        run.write_beside(args.foundation)
    if args.sha256 is None:
        console.say(
            f"{args.foundation} has the SHA-256 {files.sha256(args.foundation)}; nobody said which it should have: "
            "pin it as sha256 of the potential in the config"
        )
    done = f"fetched from {address}" if new else "there already"
    console.say(f"{args.foundation}: {args.foundation.stat().st_size} bytes, {done}")


if __name__ == "__main__":
    console.run(main)
