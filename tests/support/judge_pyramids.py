"""`make fuzz` of whole slides: drawn pyramids beyond those of the suite. The exit code is 1 when one is silently wrong.

A finding is named by its seed, which is all that a case depends on.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from drawn_pyramids import cases, other_cases
from pyramid_judge import judge


def main(arguments: Sequence[str]) -> int:
    """Judges so many cases from a seed on, and a fifth as many of scanners' other formats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args(arguments)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        # Beyond the suite's, which are the first ones.
        first = options.seed * 100_000
        for number, case in enumerate(chain(cases(options.count, first), other_cases(options.count // 5, first))):
            found = judge(case, Path(folder) / str(number))
            outcomes[found.outcome] += 1
            is_sound = case.fault == "none" and not case.sparse and case.colour == "as declared"
            if found.outcome == "wrong" or (found.outcome == "refused" and is_sound):
                print(f"{found.outcome}: {found.word}: {case}")
    print(f"drawn pyramids: {dict(outcomes)}")
    return int(outcomes["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
