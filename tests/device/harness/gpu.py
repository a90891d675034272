"""Runs kernel cases on a GPU: operands between guards, in one block of memory or each in its own."""
import math

import numpy as np

from .cuda_driver import Driver
from .kernel_cases import Case

ALIGN = 256
# Bytes around each operand that no kernel may write; the gap up to the next multiple of ALIGN belongs to them.
GUARD = 1024
# Multiprocessors that persistent blocks are told of.
PROCESSORS = 3


class Arena:
    """The operands of a case as one array, with `fill` in every byte around them."""

    def __init__(self, case, fill):
        self.spans = []
        end = GUARD
        for operand in case.operands:
            self.spans.append((end, end + len(operand)))
            end = math.ceil((end + len(operand) + GUARD) / ALIGN) * ALIGN
        self.fill = fill
        self.bytes = np.full(end, fill, dtype=np.uint8)
        for (begin, end), operand in zip(self.spans, case.operands):
            self.bytes[begin:end] = operand

    def operands(self):
        return [self.bytes[begin:end] for begin, end in self.spans]

    def stray(self):
        """Where something was written beside the operands: a description, or None."""
        at = 0
        for idx, (begin, end) in enumerate(self.spans + [(len(self.bytes),) * 2]):
            found = np.flatnonzero(self.bytes[at:begin] != self.fill)
            if len(found):
                after = f", {found[0]} bytes past the end of operand {idx - 1}" if idx else ""
                before = f"{begin - at - found[-1] - 1} bytes before operand {idx}"
                return f"{len(found)} bytes were written beside the operands{after}, the last {before}"
            at = end
        return None


class Gpu:
    """With `separate`, each operand is an allocation of its own, so that compute-sanitizer knows its ends."""

    def __init__(self, separate=False):
        self.driver = Driver()
        self.separate = separate
        self.block, self.block_bytes = None, 0

    def load(self, image):
        return self.driver.load(image)

    def run(self, case: Case, module, symbol, launch, fill):
        """The arena of a case after its kernel ran."""
        function = self.driver.function(module, symbol, launch["shared_bytes"])
        arena = Arena(case, fill)
        grid = grid_of(case, launch)
        if grid[0] == 0:
            return arena
        if self.separate:
            self._run_separate(function, arena, grid, launch)
        else:
            self._run_together(function, arena, grid, launch)
        return arena

    def _run_together(self, function, arena, grid, launch):
        if self.block_bytes < arena.bytes.nbytes:
            if self.block is not None:
                self.driver.free(self.block)
            self.block_bytes = 2 * arena.bytes.nbytes
            self.block = self.driver.allocate(self.block_bytes)
        self.driver.upload(self.block, arena.bytes)
        addresses = [self.block + begin for begin, _ in arena.spans]
        self.driver.launch(function, grid, launch["threads"], launch["shared_bytes"], addresses)
        self.driver.download(arena.bytes, self.block)

    def _run_separate(self, function, arena, grid, launch):
        operands = arena.operands()
        addresses = [self.driver.allocate(operand.nbytes) for operand in operands]
        for address, operand in zip(addresses, operands):
            self.driver.upload(address, operand)
        self.driver.launch(function, grid, launch["threads"], launch["shared_bytes"], addresses)
        for address, operand in zip(addresses, operands):
            self.driver.download(operand, address)
            self.driver.free(address)


def grid_of(case, launch):
    """Blocks, as the runtime counts them on a device of few multiprocessors, where persistent blocks make several tiles."""
    tiles = launch["tiles"]
    if len(tiles) > 1:
        # The most rows for which each is taken.
        ends = [tile["from"] - 1 for tile in tiles[1:]] + [case.max_rows]
        reached = [(tile, end) for tile, end in zip(tiles, ends) if tile["from"] <= case.max_rows]
        blocks = (math.ceil(min(case.max_rows, end) / tile["rows"]) * tile["across"] for tile, end in reached)
        along, across = max(blocks), 1
    else:
        along, across = 1, 1
        for tile in tiles:
            along, across = math.ceil(case.max_rows / tile["rows"]), tile["across"]
    if launch.get("persistent"):
        return (min(along * across, PROCESSORS), 1)
    return (along, across)
