"""Reads the LMDB that SemanticStyleGAN's authors publish for training."""

import os
from collections.abc import Sequence
from typing import Any

from dnnlib import UserError
from semantic.regions import CELEBAMASK, Regions
from semantic.sources.base import Sample, Source
from semantic.sources.coding import make_coding, numbered_regions
from semantic.sources.images import read_image
from training.archive import DataError

LENGTH_KEY = b"image-length"


def is_lmdb(path: str) -> bool:
    """Returns True for an LMDB folder, or its data file."""
    return os.path.isfile(os.path.join(path, "data.mdb")) or path.endswith((".mdb", ".lmdb"))


class LmdbSource(Source):
    """Image files under ``image-0000000``, index masks under ``label-0000000``, their number under ``image-length``.

    The published LMDB is CelebAMask-HQ. So masks with at most 13 regions get its names, unless a palette or a mask map
    gives other names.

    Args:
        path: the LMDB's folder or data file.
        palette, mask_map: JSON files, see `make_coding`.

    Raises:
        UserError: the lmdb package is missing, or the LMDB is damaged or of another layout.
    """

    def __init__(self, path: str, palette: str | None = None, mask_map: str | None = None):
        super().__init__()
        self._path = path
        self._handle: tuple[int, Any] | None = None
        self._coding = make_coding(palette, mask_map, CELEBAMASK if mask_map and not palette else None)
        self.regions = self._coding.regions
        try:
            self._count = int(self._get(LENGTH_KEY))
        except ValueError as error:
            raise DataError(
                f"{LENGTH_KEY.decode()} in {path} is not a number. Expected an LMDB of SemanticStyleGAN."
            ) from error
        self._has_masks = self._count > 0 and self._find(b"label-0000000") is not None
        self.close()  # a forked process could not open it again

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def read(self, index: int) -> Sample:
        where = f"image-{index:07d} in {self._path}"
        image, jpeg, orientation, changes = read_image(self._get(b"image-%07d" % index), where)
        mask, changed = None, ()
        if self._has_masks:
            mask, changed = self._coding.decode(self._get(b"label-%07d" % index), f"label-{index:07d} in {self._path}")
        return Sample(image, jpeg, mask, where, orientation, changes + changed)

    def regions_of(self, used: Sequence[int]) -> Regions:
        if self.regions is not None:
            return self.regions
        return CELEBAMASK if max(used) < len(CELEBAMASK) else numbered_regions(used)

    def close(self) -> None:
        """Close the LMDB. It opens again at the next read."""
        if self._handle is not None:
            self._handle[1].close()
            self._handle = None

    def _get(self, key: bytes) -> bytes:
        value = self._find(key)
        if value is None:
            raise DataError(f"{self._path} has no {key.decode()}. Expected a complete LMDB of SemanticStyleGAN.")
        return value

    def _find(self, key: bytes) -> bytes | None:
        try:
            import lmdb
        except ImportError as error:
            raise UserError("To read an LMDB, install lmdb: pip install 'semantic-stylegan[lmdb]'") from error
        try:
            if self._handle is None or self._handle[0] != os.getpid():
                folder = os.path.isdir(self._path)
                env = lmdb.open(self._path, subdir=folder, readonly=True, lock=False, readahead=False, meminit=False)
                needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
                if os.path.getsize(os.path.join(self._path, "data.mdb") if folder else self._path) < needed:
                    env.close()  # to read behind the end of the file would kill the process
                    raise OSError("it is incomplete")
                self._handle = (os.getpid(), env)
            with self._handle[1].begin() as transaction:
                return transaction.get(key)
        except (lmdb.Error, OSError) as error:
            raise DataError(f"Cannot read the LMDB {self._path}: {error}. Copy it again.") from error
