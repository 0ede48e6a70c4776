"""The TFDS builders of the published sets: ArrayRecord files with one record per frame.

TFDS's usual builder needs TensorFlow as soon as a split is larger than 1 GB, because it sorts
records through temporary files of TensorFlow's; `ShardBasedBuilder` writes shards in the order
given and needs none. A clip is a range of records, found by the table in the set's metadata.
"""

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from rvrt_jax.data import published, tiles
from rvrt_jax.data.degrade import DEGRADATIONS, mod_crop
from rvrt_jax.data.prepare import layout
from rvrt_jax.data.prepare.download_tree import Tree
from rvrt_jax.data.prepare.layout import ClipFiles, report
from rvrt_jax.data.published import DATASETS
from rvrt_jax.errors import UserError
from rvrt_jax.media import images

SHARD_BYTES = 256 * 2**20  # TFDS holds the images of a shard in memory while it writes it
_MOST_PROBLEMS = 50  # broken images after which the rest is not looked at

Example = dict[str, Any]


class Frames(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Builds a published set from the files of a download.

    Records: clip and frame (names), gt and, but for the config "clean", lq: frames of PNG files in
    tiles (data/tiles.py), others, such as JPEG's, as the bytes of the source's files. Version 1.0.0
    had the bytes of all files. The config's name is the kind of lq. Metadata: {"clips": {split:
    [[name, frames, height, width], ...]}, "scale": GT size over LQ size}, clips in the order of
    their records.
    """

    VERSION = tfds.core.Version("1.1.0")

    def __init__(
        self,
        *,
        tree: Tree,
        splits: Mapping[str, Sequence[ClipFiles]],
        degradation: str | None = None,
        progress: Callable[[int], None] = lambda frames: None,
        **options: Any,
    ) -> None:
        """splits: what `layout.find` returned. degradation: makes lq of gt, one of DEGRADATIONS.

        progress: called with the number of frames done. options: data_dir, config, file_format.
        """
        self._tree, self._files = tree, splits
        self._degradation, self._progress = degradation, progress
        self._problems: list[str] = []
        self._done = 0
        self._table: dict[str, list] = {}  # becomes part of the metadata
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        text, content = tfds.features.Text(), tfds.features.Tensor(shape=(), dtype=np.object_)
        features = {"clip": text, "frame": text, "gt": content}
        assert self.builder_config is not None  # every set has some
        if self.builder_config.name != "clean":
            features["lq"] = content
        data = DATASETS[self.name]
        return tfds.core.DatasetInfo(
            builder=self,
            description=data.title,
            homepage=data.source,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(clips=self._table, scale=data.scale),
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[tuple[int, Example]]]]]:
        del dl_manager  # everything is there already
        shards = {}
        last = list(self._files)[-1]
        for split, clips in self._files.items():
            self._table[split] = []
            groups = _grouped(clips, self._tree)
            shards[split] = [
                self._shard(split, group, last=split == last and group is groups[-1])
                for group in groups
            ]
        return shards

    def _shard(
        self, split: str, clips: list[ClipFiles], *, last: bool
    ) -> Callable[[], Iterator[tuple[int, Example]]]:
        def examples() -> Iterator[tuple[int, Example]]:
            for clip in clips:
                yield from self._clip(split, clip)
                if len(self._problems) >= _MOST_PROBLEMS:
                    break
            if self._problems and (last or len(self._problems) >= _MOST_PROBLEMS):
                raise report(self.name, self._tree.source, self._problems)

        return examples

    def _clip(self, split: str, clip: ClipFiles) -> Iterator[tuple[int, Example]]:
        """Yields the frames of a clip, numbered; notes the broken and odd-sized ones."""
        sizes: list[tuple[int, int]] = []
        for k, path in enumerate(clip.gt):
            example: Example = {"clip": clip.name, "frame": Path(path).stem}
            try:
                gt = self._tree.read(path)
                sizes.append(_checked(path, gt, sizes, 1))
                example["gt"] = _stored(path, gt)
                if clip.lq:
                    lq = self._tree.read(clip.lq[k])
                    _checked(clip.lq[k], lq, sizes, DATASETS[self.name].scale)
                    example["lq"] = _stored(clip.lq[k], lq)
                elif self._degradation is not None:
                    example["lq"] = self._degraded(Path(path), gt, self._degradation)
            except UserError as error:
                self._problems.append(str(error))
                continue
            self._done += 1
            self._progress(self._done)
            yield self._done, example
        if sizes:
            self._table[split].append([clip.name, len(clip.gt), *sizes[0]])

    def _degraded(self, path: Path, content: bytes, kind: str) -> bytes:
        scale = DATASETS[self.name].scale
        frame: np.ndarray = mod_crop(images.decode(path, content), scale)
        return tiles.encode(DEGRADATIONS[kind](frame, scale))


def prepare(
    name: str,
    source: Path,
    output: Path,
    *,
    lq: str | None = None,
    make_lq: str | None = None,
    partial: bool = False,
) -> Path:
    """Writes a published set as a TFDS data set; returns its folder, output/name/kind/version.

    lq: degraded frames of the download to take along; those a set is about always are. make_lq:
    degrades the sharp frames instead, one of DEGRADATIONS. partial: leaves missing clips out.
    Raises UserError that lists everything missing or broken, before the folder appears.
    """
    data = DATASETS[name]
    if lq is None and data.needs_lq:
        (lq,) = data.lq
    if lq is not None and lq not in data.lq:
        raise UserError(
            f"--lq {lq}: {data.title} has {', '.join(data.lq) or 'no degraded frames'}."
        )
    if make_lq is not None and (lq is not None or make_lq not in data.lq):
        raise UserError(
            f"--make-lq {make_lq} is not for {data.title}"
            + (" together with --lq." if lq else f"; there is {', '.join(data.lq) or 'none'}.")
        )
    with Tree(source) as tree:
        splits = layout.find(tree, name, lq=lq, partial=partial)
        return build(name, tree, splits, output, kind=lq or make_lq, degradation=make_lq)


def build(
    name: str,
    tree: Any,
    splits: dict[str, list[ClipFiles]],
    output: Path,
    *,
    kind: str | None,
    degradation: str | None = None,
) -> Path:
    """Writes the clips of `splits` as a TFDS data set; returns its folder.

    tree: what has their files, as `Tree` has. kind: of their LQ frames, None without.
    """
    with tqdm(total=_count(splits), unit="frame", disable=None) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        builder = make(name)(
            tree=tree,
            splits=splits,
            degradation=degradation,
            progress=show,
            data_dir=str(output),
            config=kind or published.CLEAN,
            file_format="array_record",
        )
        folder = Path(builder.data_dir)
        if folder.exists():
            raise UserError(f"{folder} is there already. Delete it to prepare it again.")
        for left in sorted(folder.parent.glob("incomplete.*")):
            print(f"note: {left} is from a preparation that was cut off or still runs.")
        _check_space(tree, splits, output)
        _write(builder)
    return folder


def _count(splits: Mapping[str, Sequence[ClipFiles]]) -> int:
    """Returns the number of frames in all splits."""
    return sum(len(clip.gt) for clips in splits.values() for clip in clips)


def _check_space(tree: Tree, splits: Mapping[str, Sequence[ClipFiles]], output: Path) -> None:
    """Raises UserError if the disk has no room for a copy of the frames."""
    paths = (path for clips in splits.values() for clip in clips for path in (*clip.gt, *clip.lq))
    needed = sum(tree.files[path].size for path in paths)
    output.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output).free
    if needed > free:
        raise UserError(
            f"{output} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed. Give "
            "another --output."
        )


def _write(builder: tfds.core.DatasetBuilder) -> None:
    """Runs a builder; its folder takes its name when it is whole."""
    # TFDS leaves empty folders in the output otherwise, and prints that it downloads unknown sizes.
    with tempfile.TemporaryDirectory() as unused, contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=unused)


def make(name: str) -> type[Frames]:
    """Returns the builder class of a published set; TFDS takes a set's name from its class."""
    return type(
        name.title().replace("_", ""),
        (Frames,),
        {"name": name, "BUILDER_CONFIGS": _configs(name), "__module__": __name__},
        skip_registration=True,
    )


def _configs(name: str) -> list[tfds.core.BuilderConfig]:
    kinds = [] if DATASETS[name].needs_lq else ["clean"]
    return [tfds.core.BuilderConfig(name=kind) for kind in [*kinds, *DATASETS[name].lq]]


def _checked(
    path: str, content: bytes, sizes: list[tuple[int, int]], scale: int
) -> tuple[int, int]:
    """Returns an image's (height, width); raises UserError if it does not go with the first GT."""
    if not content:
        raise UserError(f"{path} is empty (0 bytes).")
    info = images.probe_bytes(Path(path), content)
    size = info.height, info.width
    expected = tuple(side // scale for side in sizes[0]) if sizes else size
    if size != expected:
        raise UserError(
            f"{path} is {size[1]}x{size[0]}; {expected[1]}x{expected[0]} goes with the clip's "
            "first frame."
        )
    return size


def _stored(path: str, content: bytes) -> bytes:
    """Returns an image file's content as a record keeps it: in tiles, if it is a PNG.

    JPEG files decode quickly as they are, and would take many times the room.
    """
    return tiles.encode(images.decode(Path(path), content)) if images.is_png(content) else content


def _grouped(clips: Sequence[ClipFiles], tree: Tree) -> list[list[ClipFiles]]:
    """Cuts the clips into shards of about SHARD_BYTES."""
    groups: list[list[ClipFiles]] = [[]]
    size = 0
    for clip in clips:
        added = sum(tree.files[path].size for path in (*clip.gt, *clip.lq))
        if groups[-1] and size + added > SHARD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(clip)
        size += added
    return groups
