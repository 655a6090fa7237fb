"""Started alone, as `python -I -S run_lean.py LIBRARY_FOLDER|- LIMITS COMMAND...`: limits this process, becomes Lean.

LIMITS is `address-space bytes,CPU seconds,output bytes`. With a folder, Lean is called inside its libleanshared.so,
which exports the entry point of the `lean` program; with "-", COMMAND is executed.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(folder: str, limits: str, command: list[str]) -> None:
    """Never returns."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    memory, cpu, output = map(int, limits.split(","))
    for name, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, cpu), (resource.RLIMIT_FSIZE, output)):
        hard = resource.getrlimit(name)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(name, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if folder == "-":
        os.execv(command[0], command)
    lean = ctypes.CDLL(os.path.join(folder, "libleanshared.so"))
    words = [word.encode() for word in command]
    code = lean.lean_main(len(words), (ctypes.c_char_p * (len(words) + 1))(*words, None))
    libc.fflush(None)
    os._exit(code & 255)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
