"""Task vectors of low rank: tau of each weight matrix as B @ A, what a LoRA holds; everything else as it is.

The product of a truncated SVD is the nearest matrix of its rank (Eckart and Young, 1936), so no other B and A keep more of
|tau|^2. A convolution's kernel [out, in, width] is the matrix [out, in * width], as in LoRA. lam scales the product:
dW = lam * B @ A. (peft's `add_weighted_adapter` with weights [1, -1] scales A and B apart, which is another matrix: peft
issue 3004.)

Whisper's embedding, more than a third of all elements of base, is a matrix like the others. Every row of it moves a little, and
most of those small moves are lost. Keeping the rows that moved most would lose far more: 3 % of its |tau|^2 is in the rows that
take the bytes in which rank 8 holds 46 % (quickstart, Kokoro).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from syn2real_utils.errors import UserError
from syn2real_utils.parameters import State
from syn2real_utils.progress import track
from syn2real_utils.vectors import TaskVector

HEADER = "lora"  # key of the file's metadata that says that it holds factors
A, B = ".lora_A", ".lora_B"  # behind the name of a parameter: [rank, columns] and [rows, rank]
EMBEDDING = "embed_tokens"


def factorise(vector: TaskVector, rank: int) -> dict[str, Tensor]:
    """The tensors of a file of low rank: B and A of every matrix of which they are smaller, the rest as it is.

    Raises:
        UserError: no rank.
    """
    if rank < 1:
        raise UserError(f"rank {rank}: expected a whole number from 1 on, such as 8")
    tensors = {}
    for name, tensor in track(list(vector.tensors.items()), f"factors of rank {rank}"):
        rows, columns = _sides(tensor)
        if tensor.ndim > 1 and rank * (rows + columns) < rows * columns:
            tensors[name + B], tensors[name + A] = factors(tensor.reshape(rows, columns), rank)
        else:
            tensors[name] = tensor
    return tensors


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """B [rows, rank] and A [rank, columns] whose product is the nearest to `matrix`: its truncated SVD, in float32.

    The singular vectors of the shorter side are the eigenvectors of its Gram matrix, which is small where one side is as
    long as a vocabulary; float64, so that squaring loses nothing that float32 could hold.
    """
    wide = matrix.double()
    tall = wide.shape[0] >= wide.shape[1]
    gram = wide.T @ wide if tall else wide @ wide.T
    basis = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :rank]  # eigh: by rising eigenvalue
    b, a = (wide @ basis, basis.T) if tall else (basis, basis.T @ wide)
    return b.float().contiguous(), a.float().contiguous()


def expand(tensors: State, header: str, file: Path) -> dict[str, Tensor]:
    """The tensors of the vector that a file of low rank stands for, in float32.

    Args:
        tensors: of the file.
        header: what `describe` wrote into its metadata.
        file: to name in an error.

    Raises:
        UserError: the header is damaged, a factor is missing or does not fit.
    """
    shapes = _read(header, file)["shapes"]
    whole = {}
    for name in dict.fromkeys(key.removesuffix(A).removesuffix(B) for key in tensors):
        try:
            product = tensors[name] if name in tensors else tensors[name + B].double() @ tensors[name + A].double()
            whole[name] = product.float().reshape(shapes.get(name, product.shape))
        except (KeyError, RuntimeError, TypeError) as error:
            raise UserError(
                f"{file} is damaged: the factors of '{name}' are missing or do not fit: fetch or publish it again"
            ) from error
    return whole


def describe(vector: TaskVector, tensors: State, rank: int) -> str:
    """The header of a file that holds `factorise(vector, rank)`: rank, shapes, and what is kept of each module."""
    shapes = {key.removesuffix(B): vector.shapes()[key.removesuffix(B)] for key in tensors if key.endswith(B)}
    header = {"rank": rank, "shapes": shapes}
    whole = TaskVector(expand(tensors, json.dumps(header), Path("the factors")))
    return json.dumps(header | {"kept": kept(vector, whole)})


def kept(vector: TaskVector, low: TaskVector) -> dict[str, float]:
    """Share of |tau|^2 that is left: 1 - |tau - low|^2 / |tau|^2 of "all", each module and the embedding (part of its module)."""
    lost, whole = _squares(vector - low), _squares(vector)
    return {part: round(1 - lost[part] / whole[part], 6) if whole[part] else 1.0 for part in whole}


def described(header: str, file: Path) -> dict[str, object]:
    """Rank and kept shares as a file's header has them."""
    found = _read(header, file)
    return {"rank": found["rank"], "kept": found.get("kept", {})}


def _squares(vector: TaskVector) -> dict[str, float]:
    parts = {module: norm**2 for module, norm in vector.norms().items()}
    rows = {name: tensor for name, tensor in vector.tensors.items() if EMBEDDING in name}
    return parts | ({EMBEDDING: TaskVector(rows).norm() ** 2} if rows else {})


def _sides(tensor: Tensor) -> tuple[int, int]:
    """Rows and columns of a tensor taken as a matrix."""
    return (tensor.shape[0], math.prod(tensor.shape[1:])) if tensor.ndim else (1, 1)


def _read(header: str, file: Path) -> Mapping:
    try:
        found = json.loads(header)
        if isinstance(found["rank"], int) and isinstance(found["shapes"], dict):
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(
        f"{file} is damaged: expected rank and shapes in the header of its low rank: fetch or publish it again"
    )
