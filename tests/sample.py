"""Makes `captures/shop` anew: a small capture of the demonstration's shop, to look at and to query.

python -m tests.sample
"""

import shutil
import tempfile
from pathlib import Path

from replay.demo.run import prepare, record
from replay.demo.shoppers import Crowd

SHIPPED = Path("captures/shop")


def make(out: Path) -> str:
    """Record a few shoppers into `out`, which is replaced; says what was recorded."""
    with tempfile.TemporaryDirectory() as scratch:
        workdir = Path(scratch) / "demo"
        prepare(workdir)
        said = record(workdir, Crowd(shoppers=12, visits=3), print)
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(workdir / "capture", out, ignore=shutil.ignore_patterns(".*"))
    return said


if __name__ == "__main__":
    print(make(SHIPPED))
