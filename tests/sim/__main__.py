"""`python -m tests.sim`: run many seeds, or look closely at one."""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.sim.run import Result, run_seed, tune_collector
from tests.sim.settings import NAMES
from tests.sim.world import Violation

TRACE_SHOWN = 60
SEED_LIMIT_S = 120
"""Real seconds; a seed takes less than one, and one that hangs must not hold up the others."""
CHUNK = 4
PROGRESS_EVERY_S = 60


@dataclass
class Campaign:
    """What a range of seeds came to."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: list[Result] = field(default_factory=list)
    seeds: int = 0
    commits: int = 0
    took_s: float = 0.0

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.commits += result.commits
        self.counts += result.counts
        if result.violations:
            self.failed.append(result)

    @property
    def pace(self) -> str:
        return (
            f"{self.seeds} seeds in {self.took_s:.1f} s: {self.seeds / self.took_s:.1f} seeds "
            f"a second, {self.commits} commits, {len(self.failed)} failed"
        )

    def as_json(self) -> str:
        return json.dumps(
            {
                "seeds": self.seeds,
                "seconds": round(self.took_s, 1),
                "seeds_per_second": round(self.seeds / self.took_s, 2),
                "commits": self.commits,
                "counts": dict(sorted(self.counts.items())),
                "failed": [
                    {"seed": r.seed, "rule": v.rule, "text": v.text}
                    for r in self.failed
                    for v in r.violations[:1]
                ],
            },
            indent=1,
        )


def main() -> int:
    args = _arguments()
    if args.seed is not None:
        shown = 10**6 if args.trace else TRACE_SHOWN
        result = run_seed(args.seed, traced=True, forced=args.settings)
        return _report(result, args.settings, len_shown=shown)
    campaign = _run_range(args)
    for name, count in sorted(campaign.counts.items()):
        print(f"  {name:28} {count:8d}")
    print(campaign.pace)
    if args.json is not None:
        args.json.write_text(campaign.as_json() + "\n", encoding="utf-8")
    if campaign.failed:
        _report(campaign.failed[0], args.settings, len_shown=TRACE_SHOWN)
    return 1 if campaign.failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument(
        "--settings",
        type=_names,
        help="these settings of the operator, with commas between; '' or 'default': the defaults",
    )
    parser.add_argument("--trace", action="store_true", help="show the whole trace")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep-going", action="store_true", help="list every failing seed")
    parser.add_argument("--json", type=Path, help="write the summary to this file too")
    return parser.parse_args()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name not in ("", "default"))
    if not {*names} <= {*NAMES}:
        raise argparse.ArgumentTypeError(f"known are {', '.join(NAMES)}")
    return names


def _run_range(args: argparse.Namespace) -> Campaign:
    campaign = Campaign()
    started = said_at = time.perf_counter()
    seeds = range(args.start, args.start + args.seeds)
    for result in _results(seeds, args.jobs, args.settings):
        campaign.add(result)
        now = time.perf_counter()
        campaign.took_s = now - started
        if result.violations:
            first = result.violations[0]
            print(f"seed {result.seed}: {first.rule} {first.text[-300:]}", flush=True)
            if not args.keep_going:
                break
        if now - said_at > PROGRESS_EVERY_S:
            said_at = now
            print(campaign.pace, flush=True)
    return campaign


def _results(seeds: range, jobs: int, forced: tuple[str, ...] | None) -> Iterator[Result]:
    limited = partial(_limited, forced)
    if jobs <= 1:
        tune_collector()
        yield from map(limited, seeds)
        return
    with ProcessPoolExecutor(jobs, initializer=tune_collector) as pool:
        try:
            yield from pool.map(limited, seeds, chunksize=CHUNK)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _TooLongError(KeyboardInterrupt):
    """Of the kind that asyncio lets out of a task at once."""


def _limited(forced: tuple[str, ...] | None, seed: int) -> Result:
    """One seed, given up after so many real seconds."""

    def give_up(number: int, frame: object) -> None:
        raise _TooLongError

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SEED_LIMIT_S)
    try:
        return run_seed(seed, forced=forced)
    except _TooLongError:
        found = Violation("rest", f"no end after {SEED_LIMIT_S} real seconds")
        return Result(seed, [found], Counter(), [])
    finally:
        signal.alarm(0)


def _report(result: Result, forced: tuple[str, ...] | None, *, len_shown: int) -> int:
    for line in result.trace[-len_shown:]:
        print(line)
    for violation in result.violations:
        print(f"seed {result.seed} breaks {violation.rule}: {violation.text}")
    if result.violations:
        chosen = "" if forced is None else f" --settings '{','.join(forced)}'"
        print(f"again: python -m tests.sim --seed {result.seed}{chosen} --trace")
    else:
        print(f"seed {result.seed}: every rule held")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
