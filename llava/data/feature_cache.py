"""Features of a frozen tower on disk: computed once, mapped into memory by every later run.

A cache has one folder per tower and transform. An image content has one row of features per view.
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
from llava.tiling import Tiling

_STORED_AS = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.uint16}


class FeatureCache:
    """Rows `(patches, mm_hidden_size)` in the dtype that the tower computes in.

    Safe against crashes: rows are flushed before the index names them, and rows that the index does not name are
    overwritten. Only `ensure` writes, under a lock.

    Args:
        root: folder of all caches.
        tower: may be a stub; its weights are loaded only when an image is missing.
        image_aspect_ratio: the transform before the tower, as in the config.
        tiling: of the model; None for one view per image.
    """

    def __init__(
        self,
        root: str | Path,
        tower: VisionTower,
        image_aspect_ratio: str | None,
        dtype: torch.dtype,
        tiling: Tiling | None = None,
    ) -> None:
        self.image_aspect_ratio = image_aspect_ratio
        self.tiling = tiling if tiling is not None and tiling.several else None
        self.dtype = dtype
        self.shape = (tower.num_patches, tower.hidden_size)
        self.key = {
            "tower": tower.identity(),
            "weights": {file.name: sha256_of(file) for file in tower.weight_files} or tower.vision_tower_name,
            "processor": json.loads(tower.load_processor().to_json_string()),
            "image_aspect_ratio": image_aspect_ratio,
            "dtype": str(dtype),
            "shape": list(self.shape),
            # Projector and merge type come after the features. A key without canvases is that of earlier versions.
            **({"canvases": self.tiling.canvases} if self.tiling else {}),
        }
        text = json.dumps(self.key, sort_keys=True, default=str)
        self.folder = Path(root) / hashlib.sha256(text.encode()).hexdigest()[:16]
        self._data, self._index = self.folder / "features.bin", self.folder / "index.jsonl"
        self._row_bytes = self.shape[0] * self.shape[1] * dtype.itemsize
        self._rows: dict[str, tuple[int, int]] | None = None
        self._files: dict[str, tuple[int, int, str]] = {}
        self._map: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Each worker process maps the file for itself instead of receiving a copy.
        return self.__dict__ | {"_map": None}

    def features(self, path: str | Path) -> torch.Tensor:
        """Features of one image, `(patches, mm_hidden_size)`; of several views `(views, patches, mm_hidden_size)`.

        Raises:
            KeyError: the image is not in the cache, or has changed since `ensure`.
        """
        found = self._rows_by_content().get(self._content_of(Path(path)))
        if found is None:
            raise KeyError(f"image {path} is not in the feature cache {self.folder}; was it changed during the run?")
        first, end = found
        if self._map is None or end > len(self._map):
            # A process that was killed while it wrote leaves a part of a row at the end.
            rows = self._data.stat().st_size // self._row_bytes
            self._map = np.memmap(self._data, dtype=_STORED_AS[self.dtype], mode="r", shape=(rows, *self.shape))
        values = torch.from_numpy((self._map[first:end] if self.tiling else self._map[first]).copy())
        return values.view(torch.bfloat16) if self.dtype is torch.bfloat16 else values

    def ensure(self, paths: Iterable[str | Path], tower: VisionTower, device: Any = None, batch_size: int = 32) -> int:
        """Computes the missing features of these images, `batch_size` views at once; returns the number of images."""
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
            first = max((end for _, end in rows.values()), default=0)
            needed = full_disk_explained(self._data, None, (first + len(items)) * self._row_bytes)
            bar = tqdm(total=len(items), desc="vision features", unit="image")
            beginning = "r+b" if self._data.exists() else "w+b"
            with needed, open(self._data, beginning) as data, open(self._index, "a") as index:
                # A line that a crash cut off would swallow the next one.
                index.truncate(self._index.read_bytes().rfind(b"\n") + 1)
                data.seek(first * self._row_bytes)
                data.truncate()
                step = max(1, batch_size // self.tiling.most_views) if self.tiling else batch_size
                for start in range(0, len(items), step):
                    batch = items[start : start + step]
                    images = [open_image(path, "the feature cache") for _, path in batch]
                    transform = self.image_aspect_ratio, self.tiling
                    pixels = [process_image(image, tower.image_processor, *transform) for image in images]
                    views = pixels if self.tiling else [one.unsqueeze(0) for one in pixels]
                    features = tower(torch.cat(views)).to(self.dtype).cpu().contiguous()
                    raw = features.view(torch.uint16) if self.dtype is torch.bfloat16 else features
                    data.write(raw.numpy().tobytes())
                    data.flush()
                    os.fsync(data.fileno())
                    for (content, _), own in zip(batch, views, strict=True):
                        rows[content] = first, first + len(own)
                        entry = {"content": content, "row": first}
                        index.write(json.dumps(entry | ({"views": len(own)} if self.tiling else {})) + "\n")
                        first += len(own)
                    index.flush()
                    bar.update(len(batch))
            bar.close()
            return len(items)

    def _rows_by_content(self) -> dict[str, tuple[int, int]]:
        """The first row of each content, and the one after its last."""
        if self._rows is None:
            rows = {}
            whole = self._data.stat().st_size // self._row_bytes if self._data.exists() else 0
            for line in self._index.read_text().splitlines() if self._index.exists() else ():
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    end = entry["row"] + entry.get("views", 1)
                    if end <= whole:
                        rows[entry["content"]] = entry["row"], end
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
