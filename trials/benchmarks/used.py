"""What a command uses, measured from a small process: a child's peak memory begins with that of who started it.

python used.py COMMAND…    its exit code is the command's; the last line is one JSON object
"""

import json
import resource
import subprocess
import sys


def used(command: list[str]) -> int:
    """CPU seconds of all that was waited for, and the peak (KiB, resident) of the largest process."""
    exit_code = subprocess.run(command).returncode
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = {"cpu_s": children.ru_utime + children.ru_stime, "peak_kib": children.ru_maxrss}
    sys.stdout.write(f"\n{json.dumps(told)}\n")
    return exit_code


if __name__ == "__main__":
    sys.exit(used(sys.argv[1:]))
