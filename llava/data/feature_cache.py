"""Features of a frozen tower on disk: computed once, mapped into memory by every later run.

A cache has one folder per tower and transform, which holds one row of features per image content.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from transformers.utils.logging import tqdm

from llava.files import full_disk_explained, sha256_of, write_json
from llava.images import open_image
from llava.mm_utils import process_image
from llava.model.multimodal_encoder.base import VisionTower

_STORED_AS = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.uint16}


class FeatureCache:
    """Rows `(tokens, mm_hidden_size)` in the dtype that the tower computes in.

    Safe against crashes: rows are flushed before the index names them, and rows that the index does not name are
    overwritten. Only `ensure` writes, under a lock.

    Args:
        root: folder of all caches.
        tower: may be a stub; its weights are loaded only when an image is missing.
        image_aspect_ratio: the transform before the tower, as in the config.
    """

    def __init__(
        self, root: str | Path, tower: VisionTower, image_aspect_ratio: str | None, dtype: torch.dtype
    ) -> None:
        self.image_aspect_ratio = image_aspect_ratio
        self.dtype = dtype
        self.shape = (tower.num_patches, tower.hidden_size)
        self.key = {
            "tower": tower.identity(),
            "weights": {file.name: sha256_of(file) for file in tower.weight_files} or tower.vision_tower_name,
            "processor": json.loads(tower.load_processor().to_json_string()),
            "image_aspect_ratio": image_aspect_ratio,
            "dtype": str(dtype),
            "shape": list(self.shape),
        }
        text = json.dumps(self.key, sort_keys=True, default=str)
        self.folder = Path(root) / hashlib.sha256(text.encode()).hexdigest()[:16]
        self._data, self._index = self.folder / "features.bin", self.folder / "index.jsonl"
        self._row_bytes = self.shape[0] * self.shape[1] * dtype.itemsize
        self._rows: dict[str, int] | None = None
        self._files: dict[str, tuple[int, int, str]] = {}
        self._map: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Each worker process maps the file for itself instead of receiving a copy.
        return self.__dict__ | {"_map": None}

    def features(self, path: str | Path) -> torch.Tensor:
        """Features of one image, `(tokens, mm_hidden_size)`.

        Raises:
            KeyError: the image is not in the cache, or has changed since `ensure`.
        """
        row = self._rows_by_content().get(self._content_of(Path(path)))
        if row is None:
            raise KeyError(f"image {path} is not in the feature cache {self.folder}; was it changed during the run?")
        if self._map is None or row >= len(self._map):
            self._map = np.memmap(self._data, dtype=_STORED_AS[self.dtype], mode="r").reshape(-1, *self.shape)
        values = torch.from_numpy(self._map[row].copy())
        return values.view(torch.bfloat16) if self.dtype is torch.bfloat16 else values

    def ensure(self, paths: Iterable[str | Path], tower: VisionTower, device: Any = None, batch_size: int = 32) -> int:
        """Computes the missing features of these images; returns their number."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            self._rows, self._files, self._map = None, {}, None
            rows = self._rows_by_content()
            missing: dict[str, Path] = {}
            for path in map(Path, paths):
                content = self._content_of(path, remember=True)
                if content not in rows:
                    missing.setdefault(content, path)
            if not missing:
                return 0
            tower.load_model(device_map=device, dtype=self.dtype)
            write_json(self.folder / "key.json", json.loads(json.dumps(self.key, default=str)))
            items = list(missing.items())
            needed = full_disk_explained(self._data, None, (len(rows) + len(items)) * self._row_bytes)
            bar = tqdm(total=len(items), desc="vision features", unit="image")
            beginning = "r+b" if self._data.exists() else "w+b"
            with needed, open(self._data, beginning) as data, open(self._index, "a") as index:
                # A line that a crash cut off would swallow the next one.
                index.truncate(self._index.read_bytes().rfind(b"\n") + 1)
                first = max(rows.values(), default=-1) + 1
                data.seek(first * self._row_bytes)
                data.truncate()
                for start in range(0, len(items), batch_size):
                    batch = items[start : start + batch_size]
                    images = [open_image(path, "the feature cache") for _, path in batch]
                    pixels = [process_image(i, tower.image_processor, self.image_aspect_ratio) for i in images]
                    features = tower(torch.stack(pixels)).to(self.dtype).cpu().contiguous()
                    raw = features.view(torch.uint16) if self.dtype is torch.bfloat16 else features
                    data.write(raw.numpy().tobytes())
                    data.flush()
                    os.fsync(data.fileno())
                    for row, (content, _) in enumerate(batch, first + start):
                        rows[content] = row
                        index.write(json.dumps({"content": content, "row": row}) + "\n")
                    index.flush()
                    bar.update(len(batch))
            bar.close()
            return len(items)

    def _rows_by_content(self) -> dict[str, int]:
        if self._rows is None:
            rows = {}
            whole = self._data.stat().st_size // self._row_bytes if self._data.exists() else 0
            for line in self._index.read_text().splitlines() if self._index.exists() else ():
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    if entry["row"] < whole:
                        rows[entry["content"]] = entry["row"]
            self._rows = rows
        return self._rows

    def _content_of(self, path: Path, remember: bool = False) -> str:
        """Hash of the image's bytes; computed again if size or time of change differ from the last read."""
        stat = path.stat()
        seen = self._files.get(str(path))
        if seen and seen[:2] == (stat.st_size, stat.st_mtime_ns):
            return seen[2]
        content = sha256_of(path)
        if remember:
            self._files[str(path)] = (stat.st_size, stat.st_mtime_ns, content)
        return content
