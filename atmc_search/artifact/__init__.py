"""What ships: a compressed model as one small file, and back.

`pack` and `unpack` are the format: `container` frames the file, `body` puts its tensors in order, `coding` codes them;
`version1` reads the first format. `folded` and `smallest_forms` make a model smaller without changing it; `account`
says what its bytes go into, `describe` what a file's did, `mixed_bits` how best to spend them. Decoding never executes
what the file holds: architectures are known by name.
"""

from atmc_search.artifact.account import SizeAccount, account
from atmc_search.artifact.allocation import encoded_bytes, mixed_bits
from atmc_search.artifact.container import annotated, pack, read_header, repacked, unpack
from atmc_search.artifact.describe import Description, StoredTensor, describe
from atmc_search.artifact.folding import folded
from atmc_search.artifact.forms import smallest_forms
from atmc_search.artifact.model import Architecture, CompressedModel

__all__ = [
    "Architecture",
    "CompressedModel",
    "Description",
    "SizeAccount",
    "StoredTensor",
    "account",
    "annotated",
    "describe",
    "encoded_bytes",
    "folded",
    "mixed_bits",
    "pack",
    "read_header",
    "repacked",
    "smallest_forms",
    "unpack",
]
