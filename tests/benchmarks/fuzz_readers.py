"""Thousands of broken files of every format: how many are read, refused in one clear sentence, or worse.

python tests/benchmarks/fuzz_readers.py --mutations 3000 --seed 0
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.volumes.fuzzing import FORMATS, Tally, fuzz  # after the path is set


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=3000, help="in all, shared by the formats (default: 3000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", choices=sorted(FORMATS), default=list(FORMATS))
    args = parser.parse_args()
    share = -(-args.mutations // len(args.formats))
    print(f"{'format':<18}{'broken':>8}{'read':>8}{'refused':>9}{'faults':>8}{'worst MiB':>11}{'worst s':>9}")
    tallies = {}
    for name in args.formats:
        with tempfile.TemporaryDirectory() as folder:
            tallies[name] = fuzz(name, share, args.seed, Path(folder))
        print(row(name, tallies[name]), flush=True)
    total = Tally()
    for tally in tallies.values():
        total.outcomes += tally.outcomes
        total.faults += tally.faults
        total.worst_bytes, total.worst_s = max(total.worst_bytes, tally.worst_bytes), max(total.worst_s, tally.worst_s)
    print(row("all", total))
    print(*total.faults, sep="\n")
    return 1 if total.faults else 0


def row(name: str, tally: Tally) -> str:
    counts = tally.outcomes
    return (
        f"{name:<18}{counts.total():>8}{counts['read']:>8}{counts['refused']:>9}{len(tally.faults):>8}"
        f"{tally.worst_bytes / 2**20:>11.1f}{tally.worst_s:>9.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
