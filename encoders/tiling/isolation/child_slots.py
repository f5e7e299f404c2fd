"""The child's side of the ring: where batches are decoded to, and the parent's word on which are free again."""

import numpy as np
from numpy.typing import NDArray

from encoders.tiling.isolation.child_pipes import ChildPipes
from encoders.tiling.isolation.reader_protocol import Release, TilesRequest
from encoders.tiling.isolation.tile_ring import RingShape, TileRing


class ChildSlots:
    """Slots for one TilesRequest (see read_tiles.BatchSlots); only the parent frees one, in the ring's order."""

    def __init__(self, request: TilesRequest, tile_px: int, pipes: ChildPipes) -> None:
        """Raises MemoryError when the ring does not fit into this process's address space."""
        shape = RingShape(request.slots, request.batch_tiles, tile_px)
        try:
            self._ring = TileRing(request.memory, shape, writable=True)
        except OSError as error:
            raise MemoryError from error
        self._pipes = pipes

    def __len__(self) -> int:
        return self._ring.shape.slots

    def view(self, slot: int, count: int) -> NDArray[np.uint8]:
        """Uint8 [count, tile_px, tile_px, 3] to write to."""
        return self._ring.slot(slot, count)

    def take_freed(self, *, wait: bool) -> int:
        """How many slots the parent has freed since the last call; with `wait` at least one, however long it takes."""
        freed = 0
        while (wait and not freed) or self._pipes.request_is_there():
            Release.model_validate_json(self._pipes.next_request())
            freed += 1
        return freed
