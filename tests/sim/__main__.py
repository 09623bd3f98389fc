"""`python -m tests.sim`: run many seeds, or look closely at one."""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.sim.run import Result, run_seed

TRACE_SHOWN = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="show the whole trace")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep-going", action="store_true", help="list every failing seed")
    args = parser.parse_args()
    if args.seed is not None:
        return _report(run_seed(args.seed), len_shown=10**6 if args.trace else TRACE_SHOWN)
    started = time.perf_counter()
    seeds = range(args.start, args.start + args.seeds)
    counts: Counter[str] = Counter()
    failed: list[Result] = []
    done = 0
    with ProcessPoolExecutor(args.jobs) as pool:
        results = pool.map(run_seed, seeds, chunksize=8) if args.jobs > 1 else map(run_seed, seeds)
        for result in results:
            done += 1
            counts += result.counts
            if result.violations:
                failed.append(result)
                if not args.keep_going:
                    break
                print(
                    f"seed {result.seed}: {result.violations[0].rule} "
                    f"{result.violations[0].text[-300:]}",
                    flush=True,
                )
    took = time.perf_counter() - started
    for name, count in sorted(counts.items()):
        print(f"  {name:28} {count:8d}")
    print(f"{done} seeds in {took:.1f} s: {done / took:.1f} seeds a second, {len(failed)} failed")
    if failed:
        _report(failed[0], len_shown=TRACE_SHOWN)
    return 1 if failed else 0


def _report(result: Result, *, len_shown: int) -> int:
    for line in result.trace[-len_shown:]:
        print(line)
    for violation in result.violations:
        print(f"seed {result.seed} breaks {violation.rule}: {violation.text}")
    if result.violations:
        print(f"again: python -m tests.sim --seed {result.seed} --trace")
    else:
        print(f"seed {result.seed}: every rule held")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
