"""Start a run and write down, once a minute, what it takes from the machine: all of it should stay flat.

    python benchmark/soak.py soak.csv --env-id metaworld-button-press --total-timesteps 200000 ...

Everything after the CSV's name goes to rpg.py. Columns: minutes since the start; rss_mb, the resident memory of the run
and its workers together; files, their open file handles; processes; step; and since the last row: sps, steps a second,
and steps_per_cpu_s, steps a second of processor time, which other work on the machine hardly changes. The environment
variable SOAK_SECONDS sets the seconds between rows. Linux only: it reads /proc. Ends with rpg.py's exit code.
"""

import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from envs import refuse  # noqa: E402

HEADER = ["minutes", "rss_mb", "files", "processes", "step", "sps", "steps_per_cpu_s"]


def family(pid):
    """Ids of the process and its descendants."""
    found = [pid]
    for parent in found:  # grows meanwhile
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def sample(pid):
    """(MB of resident memory, open file handles, processes, seconds of processor time since their start) of a process
    and its descendants. OSError if one has just ended."""
    rss, files, ticks = 0, 0, 0
    pids = family(pid)
    for member in pids:
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user, system
        pages = int(Path(f"/proc/{member}/statm").read_text().split()[1])
        rss += pages * os.sysconf("SC_PAGE_SIZE")
        files += len(os.listdir(f"/proc/{member}/fd"))
    return round(rss / 1e6), files, len(pids), ticks / os.sysconf("SC_CLK_TCK")


def last_step(out):
    """The newest step that the run has printed to the file `out`; 0 if none."""
    steps = re.findall(r"step ([\d,]+) of", Path(out).read_text())
    return int(steps[-1].replace(",", "")) if steps else 0


def soak(table, out, flags, every):
    """Write the CSV `table`, a row each `every` seconds, while rpg.py runs with these flags and prints to the file
    `out`. Returns the run's exit code."""
    with open(table, "w", newline="") as file, open(out, "w") as stdout:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        start = time.time()
        run = subprocess.Popen([sys.executable, ROOT / "rpg.py", *flags], stdout=stdout)
        last, last_cpu, before = start, 0.0, 0
        while True:
            try:
                return run.wait(every)
            except subprocess.TimeoutExpired:
                pass
            try:
                rss, files, processes, cpu = sample(run.pid)
            except OSError:  # it, or a worker, has just ended
                continue
            now = time.time()
            step = last_step(out)
            sps = (step - before) / (now - last)
            steps_per_cpu_s = (step - before) / max(cpu - last_cpu, 0.01)
            minutes = round((now - start) / 60, 2)
            writer.writerow([minutes, rss, files, processes, step, round(sps, 1), round(steps_per_cpu_s, 1)])
            file.flush()
            last, last_cpu, before = now, cpu, step


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] else 2)
    table, *flags = sys.argv[1:]
    if table.startswith("-"):
        refuse(f"{table}: the first argument is the CSV, for example soak.csv; rpg.py's flags come after it")
    with tempfile.NamedTemporaryFile("r") as out:
        try:
            code = soak(table, out.name, flags, float(os.environ.get("SOAK_SECONDS", 60)))
        except OSError as error:
            refuse(error)
    sys.exit(code)


if __name__ == "__main__":
    main()
