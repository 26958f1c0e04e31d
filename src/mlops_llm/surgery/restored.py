"""The weights of a finished folder as numbers again, one tensor at a time, by plain arithmetic.

None of the libraries that wrote them is asked: what they write wrongly they may read wrongly too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlops_llm.errors import UserError
from mlops_llm.files import intended, read_object
from mlops_llm.models import gptq, packed
from mlops_llm.models.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor


class Restored:
    """Tensors by the names that they had before they were quantized."""

    def __init__(self, folder: Path) -> None:
        """Read the headers.

        Raises:
            UserError: a file is cut off.
        """
        self._folder, self._tensors = folder, Tensors(folder)
        self._config = read_object(folder / "config.json")

    def read(self, name: str) -> Tensor:
        """One tensor: as it is stored where it is not quantized, else (rows, columns) in float32.

        Raises:
            UserError: it is not there, in no form that is known here.
        """
        stem = name.removesuffix("weight")
        if f"{stem}_weight_qdata" in self._tensors:
            return self._rows(f"{stem}_weight_qdata", f"{stem}_weight_scale")
        if f"{stem}weight_packed" in self._tensors:
            return self._words(stem)
        if f"{stem}qweight" in self._tensors:
            parts = {part: self._read(f"{stem}{part}") for part in gptq.PACKED}
            return gptq.weight(parts, self._config["quantization_config"])
        return self._read(name)

    def _read(self, stored: str) -> Tensor:
        if stored not in self._tensors:
            raise UserError(f"{stored} is missing", str(intended(self._folder)))
        return self._tensors.read(stored)

    def _rows(self, numbers: str, scale: str) -> Tensor:
        """Whole numbers times the scale of their row (torchao's symmetric int8)."""
        return self._read(numbers).float() * self._read(scale).float().reshape(-1, 1)

    def _words(self, stem: str) -> Tensor:
        """32-bit words along each row, the first number in the lowest bits, zero in the middle (compressed-tensors)."""
        import torch

        bits, words = packed.bits(self._config), self._read(f"{stem}weight_packed")
        rows, columns = self._read(f"{stem}weight_shape").tolist()
        shifts = torch.arange(0, 32 // bits * bits, bits, dtype=torch.int32)
        numbers = ((words[:, :, None] >> shifts) & (2**bits - 1)).reshape(rows, -1)[:, :columns] - 2 ** (bits - 1)
        scale = self._read(f"{stem}weight_scale").float()
        return (numbers.reshape(rows, scale.shape[1], -1) * scale[:, :, None]).reshape(rows, columns)

    def close(self) -> None:
        """Close the files."""
        self._tensors.close()
