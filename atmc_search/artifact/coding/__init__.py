"""Entropy coding of tensors: integer probabilities (`fixed`), a range coder in three directions (`coder`), where
non-zeros are (`mask`), what they are (`values`), and one tensor from both (`tensor`).
"""

from atmc_search.artifact.coding.coder import Coder, Decoder, Encoder, Meter
from atmc_search.artifact.coding.tensor import (
    Kind,
    Margins,
    Plan,
    best_geometry,
    best_plan,
    code_tensor,
    margins,
    mask_bits,
    value_bits,
    with_values,
)

__all__ = [
    "Coder",
    "Decoder",
    "Encoder",
    "Kind",
    "Margins",
    "Meter",
    "Plan",
    "best_geometry",
    "best_plan",
    "code_tensor",
    "margins",
    "mask_bits",
    "value_bits",
    "with_values",
]
