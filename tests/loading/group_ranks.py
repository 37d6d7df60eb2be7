"""Ranks for tests: threads of one process, and a program that is one process of several."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))


class ThreadRanks:
    """`group.ranks.Ranks` among threads: every call waits for all others."""

    def __init__(self, rank, size, room, timeout_s=20.0):
        self.rank, self.size = rank, size
        self._room, self._timeout_s = room, timeout_s

    @staticmethod
    def make(size):
        room = {"barrier": threading.Barrier(size), "said": [None] * size, "calls": []}
        return [ThreadRanks(rank, size, room) for rank in range(size)]

    def _all(self, kind, mine):
        self._room["said"][self.rank] = (kind, mine)
        try:
            self._room["barrier"].wait(self._timeout_s)
            said = list(self._room["said"])
            self._room["barrier"].wait(self._timeout_s)
        except threading.BrokenBarrierError as error:
            raise RuntimeError("a thread is gone") from error
        kinds = {one[0] for one in said}
        assert len(kinds) == 1, f"ranks make different calls: {kinds}"
        return [one[1] for one in said]

    def any(self, mine):
        return any(self._all("any", mine))

    def texts(self, mine):
        return self._all("texts", mine)

    def exchange(self, out, out_sizes, into, into_sizes):
        parts = self._all("exchange", (out.clone().split(list(out_sizes)), list(into_sizes)))
        mine = [sent[self.rank] for sent, _ in parts]
        assert [len(one) for one in mine] == list(into_sizes)

        def wait():
            into.copy_(torch.cat(mine))

        return wait

    def leave(self):
        """As a process that dies."""
        self._room["barrier"].abort()


def main():
    """rank size folder mode: load as one of several processes; a line of JSON tells what came."""
    import torch.distributed as dist

    rank, size, folder, mode = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / f'meeting-{mode}'}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    from model_files import CONFIG, table

    from rtp_core.errors import WeightLoadError
    from rtp_core.loading.checkpoint import open_checkpoint
    from rtp_core.loading.group.loader import GroupLoader
    from rtp_core.loading.group.ranks import TorchRanks
    from rtp_core.loading.load import load_weights
    from rtp_core.loading.mmap_loader import MmapLoader
    from rtp_core.loading.plan import plan_weights
    from rtp_core.loading.rank_plan import plan_for
    from rtp_core.loading.read_at import LocalFile
    from rtp_core.loading.shares import Share

    class Faulty(LocalFile):
        reads = 0

        def read_into(self, offset, buffer):
            Faulty.reads += 1
            if rank == 1 and Faulty.reads == 4:
                if mode == "killed":
                    os._exit(9)
                if mode == "stuck":
                    time.sleep(600)
            if rank == 1 and mode == "broken" and Faulty.reads >= 4:
                raise OSError(5, "Input/output error")
            return super().read_into(offset, buffer)

    model = table(dtype="bfloat16")
    plan = plan_weights(model, open_checkpoint(folder / "model"))
    if mode == "other" and rank == 1:
        plan = plan_weights(table(dtype="bfloat16"), open_checkpoint(folder / "other"))
    plans = [plan_for(plan, Share(one, size, CONFIG["head_dim"])) for one in range(size)]
    loader = GroupLoader(
        TorchRanks(8.0), plans, Faulty.open, block_bytes=10_000, stall_s=2.0 if rank else 60.0
    )
    began, done = time.monotonic(), []
    try:
        found, stats = load_weights(plans[rank], loader, "cpu", done.append)
    except WeightLoadError as error:
        print(json.dumps({"error": str(error), "seconds": time.monotonic() - began}), flush=True)
        os._exit(1)
    wanted, _ = load_weights(plans[rank], MmapLoader(), "cpu", lambda _: None)
    equal = all(torch.equal(found[name], wanted[name]) for name in wanted)
    total = sum(done) == plans[rank].num_bytes
    print(json.dumps({"read": stats.bytes_read, "equal": equal, "total": total}), flush=True)


if __name__ == "__main__":
    main()
