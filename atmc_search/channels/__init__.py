"""Channels without effect: which a model's weights leave constant or unread, and the model without them.

`folded` keeps the architecture and makes zeros of what has no effect; `slimmed` takes those channels out; `macs` and
`width` count what is left; `EffectiveEntries` tells which weights can have an effect, at every step of training. All
read the model's graph (`trace`), in which each operation is one of a few kinds (`operations`). To teach them an
operation, add it to the tables there. What is in no table is left as it is.
"""

from atmc_search.channels.counting import macs, width
from atmc_search.channels.effective import EffectiveEntries
from atmc_search.channels.folding import folded, unread_outputs
from atmc_search.channels.slimming import slimmed

__all__ = ["EffectiveEntries", "folded", "macs", "slimmed", "unread_outputs", "width"]
