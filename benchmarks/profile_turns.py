"""``python -m benchmarks.profile_turns``: where spoold's own time goes while it runs turns.

The server's main thread, which runs Trio, is under cProfile; what it spends in other threads is shown as CPU
time by thread. A profiled server is two to three times slower: read the order, not the milliseconds.
"""

from __future__ import annotations

import argparse
import pstats
import sys
import tempfile
from functools import partial
from pathlib import Path

import trio

from benchmarks.measure_turns import DELTAS, THREADS, one_burst, timed_turn, turns_on_all
from benchmarks.processes import cpu_seconds, cpu_seconds_by_thread
from benchmarks.servers import Bench, scripted_model, spoold_program

_TURNS = 300
_LOADS = ("turn", "threads", "burst", "start")


async def _profile(load: str, folder: Path, output: Path) -> dict[str, float]:
    """Run the load against a profiled server; CPU seconds by thread."""
    program = spoold_program(("-m", "cProfile", "-o", str(output)))
    async with scripted_model() as model_url:
        bench = Bench([program], folder, model_url, quick=False)
        async with bench.connected(program, bench.new_home(program)) as (server, client):
            spent = cpu_seconds(server.pid)
            if load == "turn":
                thread_id = await server.new_thread(client)
                for _ in range(_TURNS):
                    await timed_turn(client, thread_id, "say ok")
            elif load == "threads":
                threads = [await server.new_thread(client) for _ in range(THREADS)]
                await turns_on_all(client, threads, _TURNS // THREADS)
            elif load == "burst":
                await one_burst(server, client, await server.new_thread(client), DELTAS)
            print(f"{load}: {cpu_seconds(server.pid) - spent:.2f} s of CPU, profiled")
            return cpu_seconds_by_thread(server.pid)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_turns", description=__doc__)
    parser.add_argument("--load", choices=_LOADS, default="turn")
    parser.add_argument("--sort", default="tottime", help="a sort key of pstats (tottime, cumtime, ncalls)")
    parser.add_argument("--top", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spoold-profile-") as folder:
        output = Path(folder) / "profile"
        threads = trio.run(partial(_profile, options.load, Path(folder), output))
        print("by thread: " + ", ".join(f"{name} {spent:.2f} s" for name, spent in threads.items()))
        pstats.Stats(str(output)).strip_dirs().sort_stats(options.sort).print_stats(options.top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
