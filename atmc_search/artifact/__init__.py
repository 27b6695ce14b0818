"""What ships: a compressed model as one small file, and back.

`pack` and `unpack` are the format (one file each for byte streams, tensors and the whole); `account` says what a
model's bytes go into, `describe` what a file's did, `mixed_bits` how best to spend them. Decoding never executes what
the file holds: architectures are known by name.
"""

from atmc_search.artifact.account import SizeAccount, account
from atmc_search.artifact.allocation import encoded_bytes, mixed_bits
from atmc_search.artifact.container import pack, read_header, unpack
from atmc_search.artifact.describe import Description, StoredTensor, describe
from atmc_search.artifact.model import Architecture, CompressedModel

__all__ = [
    "Architecture",
    "CompressedModel",
    "Description",
    "SizeAccount",
    "StoredTensor",
    "account",
    "describe",
    "encoded_bytes",
    "mixed_bits",
    "pack",
    "read_header",
    "unpack",
]
