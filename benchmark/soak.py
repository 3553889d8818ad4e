"""Start a run and write down, once a minute, what it takes from the machine: all of it should stay flat.

    OMP_NUM_THREADS=1 python benchmark/soak.py soak.csv --env-id metaworld-button-press --total-timesteps 200000 ...

Everything after the CSV's name goes to rpg.py. Columns: minutes since the start; rss_mb, the resident memory of the run
and its workers together; files, their open file handles; processes; step; and since the last row: sps, steps a second,
and steps_per_cpu_s, steps a second of processor time, which other work on the machine hardly changes.
"""

import contextlib
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EVERY = float(os.environ.get("SOAK_SECONDS", 60))


def family(pid):
    """The process and its descendants."""
    found = [pid]
    for parent in found:  # grows meanwhile
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def sample(pid):
    """(MB of resident memory, open file handles, processes), and seconds of processor time since the start."""
    rss, files, cpu, pids = 0, 0, 0, family(pid)
    for member in pids:
        cpu += sum(map(int, Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()[11:13]))  # user, system
        rss += int(Path(f"/proc/{member}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        files += len(os.listdir(f"/proc/{member}/fd"))
    return (round(rss / 1e6), files, len(pids)), cpu / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    table, *flags = sys.argv[1:]
    with open(table, "w", newline="") as file, tempfile.NamedTemporaryFile("r") as out:
        rows, start, step = csv.writer(file, lineterminator="\n"), time.time(), 0
        rows.writerow(("minutes", "rss_mb", "files", "processes", "step", "sps", "steps_per_cpu_s"))
        run = subprocess.Popen([sys.executable, ROOT / "rpg.py", *flags], stdout=open(out.name, "w"))
        last, cpu = start, 0.0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                sys.exit(run.wait(EVERY))
            try:
                figures, used = sample(run.pid)
            except OSError:  # it, or a worker, has just ended
                continue
            before, now = step, time.time()
            step = int((re.findall(r"step ([\d,]+) of", Path(out.name).read_text()) or ["0"])[-1].replace(",", ""))
            rates = (step - before) / (now - last), (step - before) / max(used - cpu, 0.01)
            rows.writerow((round((now - start) / 60, 2), *figures, step, *(round(rate, 1) for rate in rates)))
            last, cpu = now, used
            file.flush()
