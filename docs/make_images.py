"""Makes the images of the README, in docs/images/.

    python docs/make_images.py --article_dir=ARTICLE_PATCHES --output_dir=/tmp/images

Extracts the article's published patches, draws examples of them with luna16-inspect,
trains a network for a few epochs, takes a picture of its report with Chromium, and draws
the data flow. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from trainer.pictures import colors

_IMAGES = pathlib.Path(__file__).parent / 'images'
_REPORT_WINDOW_PX = (1000, 1020)
_MAX_BYTES = 100_000
_NUM_COLORS = 64

# Each row of the picture: its title, and its boxes (title, what is in it).
_ROWS = (
  (
    'luna16-extract',
    (
      ('LUNA16 download', 'scans, candidates,\nannotations'),
      ('plan', 'every record, split\nand shard, from the CSVs'),
      ('Beam workers', 'read regions, cut patches,\nwrite one shard at a time'),
      ('TFDS dataset', 'TFRecord shards of\none subset each'),
    ),
  ),
  (
    'luna16-train',
    (
      ('record streams', 'serialised records,\nread in random order'),
      ('balance', 'rejection, or one\nstream for each class'),
      ('augmentation', 'whole batches in HU,\nstateless seeds'),
      ('Keras network', 'HU window inside,\nresumes exactly'),
    ),
  ),
  (
    'luna16-evaluate',
    (
      ('score', 'probabilities, prior\nof the stream undone'),
      ('decide', 'threshold chosen on\nother records'),
      ('measure', 'metrics, intervals from\nresampling scans'),
      ('report', 'HTML, predictions,\nFROC submission'),
    ),
  ),
)


def main() -> None:
  """Makes all images."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--article_dir', required=True, help="The article's patches.")
  parser.add_argument(
    '--output_dir', required=True, type=pathlib.Path, help='Folder for the results.'
  )
  options = parser.parse_args()
  folder: pathlib.Path = options.output_dir
  _IMAGES.mkdir(exist_ok=True)
  draw_data_flow(_IMAGES / 'data_flow.svg')
  data_dir, workdir = f'--data_dir={folder}', folder / 'run'
  dataset = '--dataset=luna16_patches/article'
  _run(
    'beam_jobs.extract_patches',
    '--config=article',
    f'--luna_dir={options.article_dir}',
    data_dir,
  )
  _run(
    'trainer.inspect',
    data_dir,
    dataset,
    f'--output_dir={folder}',
    '--secs=0',
    '--seed=1',
  )
  _run('trainer.train', data_dir, dataset, f'--workdir={workdir}', '--epochs=5')
  _run('trainer.evaluate', f'--workdir={workdir}')
  _shrink(folder / 'examples.png', _IMAGES / 'examples.png')
  picture = folder / 'report.png'
  width, height = _REPORT_WINDOW_PX
  subprocess.run(
    [
      'chromium',
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--hide-scrollbars',
      f'--window-size={width},{height}',
      f'--screenshot={picture}',
      (workdir / 'report.html').resolve().as_uri(),
    ],
    check=True,
  )
  _shrink(picture, _IMAGES / 'report.png')


def draw_data_flow(path: pathlib.Path) -> None:
  """Draws the steps of the three main commands as boxes and arrows."""
  palette = colors.LIGHT
  box_width, box_height, step_x, step_y = 2.5, 1.0, 3.0, 1.75
  with rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'luna16_patches'}):
    figure = Figure(figsize=(10.4, 4.6), facecolor=palette.card)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.3, 4 * step_x - 0.2)
    axes.set_ylim(-0.2, 3 * step_y + 0.1)
    axes.axis('off')
    for row, (command, boxes) in enumerate(_ROWS):
      y = (2 - row) * step_y
      axes.text(
        0, y + box_height + 0.16, command, color=palette.model, family='monospace'
      )
      for column, (title, text) in enumerate(boxes):
        x = column * step_x
        axes.add_patch(
          FancyBboxPatch(
            (x, y),
            box_width,
            box_height,
            boxstyle='round,pad=0,rounding_size=0.12',
            facecolor=palette.shade,
            edgecolor=palette.model,
          )
        )
        center = x + box_width / 2
        axes.text(
          center, y + 0.74, title, ha='center', va='center', weight='bold', fontsize=10
        )
        axes.text(center, y + 0.34, text, ha='center', va='center', fontsize=8)
        if column:
          middle = y + box_height / 2
          start = (x - step_x + box_width, middle)
          _arrow(axes, start, (x, middle), palette)
      if row:
        # From the last box of one row to the first of the next.
        start = (3 * step_x + box_width / 2, y + step_y)
        _arrow(axes, start, (box_width, y + box_height), palette)
    figure.savefig(path, metadata={'Date': None})


def _arrow(
  axes: Axes,
  start: tuple[float, float],
  end: tuple[float, float],
  palette: colors.Palette,
) -> None:
  axes.add_patch(
    FancyArrowPatch(
      start,
      end,
      arrowstyle='-|>',
      mutation_scale=12,
      color=palette.muted,
      shrinkA=2,
      shrinkB=2,
    )
  )


def _run(module: str, *arguments: str) -> None:
  subprocess.run([sys.executable, '-m', module, *arguments], check=True)


def _shrink(source: pathlib.Path, target: pathlib.Path) -> None:
  """Writes a PNG with few colours, so that it stays small."""
  with Image.open(source) as image:
    few = image.convert('RGB').quantize(_NUM_COLORS, dither=Image.Dither.NONE)
    few.save(target, optimize=True)
  if target.stat().st_size > _MAX_BYTES:
    raise RuntimeError(f'{target} has {target.stat().st_size} bytes')


if __name__ == '__main__':
  main()
