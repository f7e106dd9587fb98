"""All that is to be measured and tested on a GPU, in one go, on a machine that may lack what pages need.

    python -m tests.bench_gpu --out gpu.jsonl          # four minutes on an H100

Where no package index can be reached, install the package by `pip install --no-deps --no-build-isolation .` before;
what tests of pages need is not needed. Runs `tests/test_cuda.py`, then the cases of `tests/bench.py --device cuda` by
1,000 and 10,000 samples, each in a process of its own with a limit of time, so that one that fails or hangs costs no
other. Prints a Markdown table last.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

HERE = Path(__file__).parent
SHOWN = (
    *("case", "samples", "fastest_plain_s", "tables_over_plain", "fast_over_plain", "bf16_over_plain"),
    *("scan_over_plain", "ablate_over_plain", "peak_gib", "failed"),
)
CASES = (  # the dearest last
    ("scan", 1000),
    ("ablate", 1000),
    ("scenes", 1000),
    ("large", 1000),
    ("scenes", 10_000),
    ("large", 10_000),
)


def lines_of(case: str, samples: int, limit: int) -> list[str]:
    """The JSON lines of a case of the bench; what it printed instead, if it failed."""
    options = ["--device", "cuda", "--rounds", "1", "--case", case, "--samples", str(samples)]
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / "bench.py"), *options],
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [json.dumps({"case": case, "samples": samples, "failed": f"took more than {limit} s"})]
    if done.returncode:
        return [json.dumps({"case": case, "samples": samples, "failed": done.stderr.strip()[-400:]})]
    return [line for line in done.stdout.splitlines() if line.startswith("{")]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File of JSON lines.")
@click.option("--limit", default=90, show_default=True, help="Seconds that a case may take.")
def main(out: Path, limit: int) -> None:
    """Test and measure."""
    tests = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", str(HERE / "test_cuda.py")]
    try:
        done = subprocess.run(tests, capture_output=True, text=True, timeout=2 * limit, check=False)
        passed = done.stdout.strip().splitlines()
    except subprocess.TimeoutExpired:
        passed = [f"took more than {2 * limit} s"]
    rows = [{"case": "test_cuda", "said": passed[-1] if passed else "nothing"}]
    out.write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    print(rows[0], flush=True)
    for case, samples in CASES:
        for line in lines_of(case, samples, limit):
            with out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            print(line, flush=True)
            rows.append(json.loads(line))
    print("| " + " | ".join(SHOWN) + " |\n|" + " --- |" * len(SHOWN))
    for row in rows[1:]:
        print("| " + " | ".join(str(row.get(name, "")) for name in SHOWN) + " |")


if __name__ == "__main__":
    main()
