"""An opened checkpoint with an opened index: captions, and what is near in the index, as records for a program."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.evaluation.answerer import Decoding
from model.evaluation.captioner import Caption, Captioner
from model.evaluation.given import Given
from model.serving.errors import Fault, RequestError
from model.serving.search import Search, hit, unfit
from model.serving.wire import Record, Served, Wish
from pipeline.reasons import Reason


@dataclass(frozen=True)
class Opened:
    about: Served
    captioner: Captioner
    search: Search | None

    @classmethod
    def of(cls, checkpoint: str, index: str | None, *, other_encoder: bool) -> "Opened":
        """other_encoder: whether the index may have keys by another encoder than those the model was trained with.

        Raises InputError where one of the two cannot be opened or they do not go together."""
        captioner = Captioner.open(checkpoint, index, Decoding(), other_encoder=other_encoder)
        search = Search(index, captioner.index) if index else None
        about = Served(
            checkpoint=checkpoint,
            index=index,
            pairs=search.pairs if search else 0,
            neighbors=captioner.neighbors,
            device=captioner.answerer.device,
        )
        return cls(about, captioner, search)

    @property
    def of_index(self) -> Search:
        assert self.search is not None, "nobody searches where there is no index"
        return self.search

    def captions(self, bodies: Sequence[bytes], wish: Wish) -> list[Record | RequestError]:
        """bodies: pictures as they come; what a crawl would not store is refused."""
        captioner = self._captioner(wish)
        return [_told(each) for each in captioner.captions((Given("", body) for body in bodies), len(bodies))]

    def _captioner(self, wish: Wish) -> Captioner:
        decoding = Decoding(beams=wish.beams, max_new_tokens=wish.new_tokens)
        if not wish.neighbors:
            return replace(self.captioner, index=None, decoding=decoding, neighbors=0)
        captioner = replace(self.captioner, decoding=decoding, neighbors=wish.neighbors)
        vars(captioner)["sight"] = self.captioner.sight  # whose encoders have been compared already
        return captioner


def _told(caption: Caption) -> Record | RequestError:
    if caption.caption is None:
        reason, _, detail = caption.error.partition(": ")
        return RequestError(Fault.BAD_PARAMETER, detail) if reason == Reason.PROMPT_TOO_LONG else unfit(caption.error)
    return {
        "caption": caption.caption,
        "neighbors": [hit(each.pair, each.similarity) for each in caption.neighbors],
        "removed": caption.removed,
        "seconds": dict(caption.seconds),
    }
