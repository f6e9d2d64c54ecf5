"""What runs in each replica: a model and an index, opened once, that answer many requests.

A method that HTTP asks returns what was wrong with the request: that is no fault of the replica's.
"""

import asyncio
from collections.abc import Hashable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from model.serving.batches import Batches
from model.serving.errors import RequestError
from model.serving.wire import Record, Served, Wish
from pipeline.errors import PipelineError
from pipeline.threads import set_threads

if TYPE_CHECKING:
    from model.serving.opened import Opened

MOST_TOGETHER = 16


class Replica:
    def __init__(self, checkpoint: str, index: str | None, *, threads: int, other_encoder: bool = False) -> None:
        """threads: of the numeric libraries. other_encoder: as Opened takes it."""
        self._checkpoint, self._index, self._threads = checkpoint, index, threads
        self._other_encoder = other_encoder
        self._opened: Opened | None = None
        self._batches = Batches[Any, Any](self._work, MOST_TOGETHER)
        with suppress(PipelineError):  # is told to whoever asks first
            self._open()

    async def about(self) -> Served:
        """Raises PipelineError where checkpoint or index cannot be opened."""
        return self._open().about

    async def caption(self, body: bytes, wish: Wish) -> Record | RequestError:
        return await self._together("caption", wish, body)

    async def search_text(self, text: str, k: int) -> Record | RequestError:
        return await self._together("text", k, text)

    async def search_picture(self, body: bytes, k: int) -> Record | RequestError:
        return await self._together("picture", k, body)

    async def picture(self, row_id: int) -> bytes | RequestError:
        """The JPEG of a pair. In no batch: it has to be read, and nothing computed."""
        return await asyncio.to_thread(self._open().of_index.picture, row_id)

    async def _together(self, method: str, alike: Hashable, item: str | bytes) -> Record | RequestError:
        answer: Record | RequestError = await self._batches.ask((method, alike), item)
        return answer

    def _work(self, kind: Hashable, items: Sequence[Any]) -> Sequence[Record | RequestError]:
        match kind:
            case ("caption", Wish() as wish):
                return self._open().captions(items, wish)
            case ("text", int(k)):
                return self._open().of_index.texts(items, k)
            case ("picture", int(k)):
                return self._open().of_index.pictures(items, k)
        raise AssertionError(f"nobody asks for {kind}")

    def _open(self) -> "Opened":
        if self._opened is None:
            from model.serving.opened import Opened

            set_threads(self._threads)
            self._opened = Opened.of(self._checkpoint, self._index, other_encoder=self._other_encoder)
        return self._opened
