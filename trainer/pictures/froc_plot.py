"""The plot of a FROC curve; apart from the other plots, as it needs no scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
import types

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from model.metrics import froc
from trainer.pictures import colors
from trainer.pictures import figures


def save_froc_curve(
  curve: froc.FrocCurve,
  band: froc.ConfidenceBand | None,
  result: str,
  path: pathlib.Path,
) -> None:
  """Writes the PNG of `draw_froc_curve`, in the colours of a light page."""
  with figures.theme(colors.LIGHT):
    figures.save(draw_froc_curve(curve, band, result), path)


def draw_froc_curve(
  curve: froc.FrocCurve,
  band: froc.ConfidenceBand | None,
  result: str,
  folds: Mapping[str, froc.FrocCurve] = types.MappingProxyType({}),
) -> Figure:
  """Draws a FROC curve from 1/8 to 8 false positives per scan, as LUNA16 shows it.

  Args:
    curve: the FROC curve.
    band: its confidence band; None for none.
    result: for the title, e.g. the CPM.
    folds: curves drawn thin behind it, by name.
  """
  points = froc.FPS_PER_SCAN
  figure, axes = figures.new_figure(width=4.6, height=4.8 if folds else 4.2)
  for number, (name, of_fold) in enumerate(folds.items()):
    axes.plot(*_points_on_log_axis(of_fold), label=name, **figures.fold_style(number))
  axes.plot(
    *_points_on_log_axis(curve),
    color=figures.MODEL_COLOR,
    label='all folds' if folds else 'FROC',
  )
  sensitivity = curve.sensitivity_at(points)
  axes.plot(points, sensitivity, 'o', c=figures.MODEL_COLOR, ms=4, clip_on=False)
  if band:
    axes.fill_between(
      band.curve.fps_per_scan,
      band.curve.lower,
      band.curve.upper,
      color=figures.MODEL_COLOR,
      alpha=0.2,
      lw=0,
      label='95 % confidence band',
    )
  _set_axes(axes)
  axes.set_title(f'FROC: {result}', fontsize=10)
  # Below the axes: no part of them is empty for all curves.
  figure.legend(frameon=False, fontsize=9, ncols=3, loc='outside lower center')
  return figure


def _set_axes(axes: Axes) -> None:
  """Sets scales and labels: those of LUNA16."""
  points = froc.FPS_PER_SCAN
  axes.set_xscale('log', base=2)
  axes.set_xticks(points, [f'{point:g}' for point in points])
  axes.set_xlim(points[0], points[-1])
  axes.set_yticks(np.linspace(0, 1, 11))
  axes.set_ylim(0, 1.02)
  axes.grid(lw=0.5, alpha=0.6)
  axes.set_xlabel('Average number of false positives per scan')
  axes.set_ylabel('Sensitivity')


def _points_on_log_axis(curve: froc.FrocCurve) -> tuple[np.ndarray, np.ndarray]:
  """Adds points between those of the curve: straight lines bend on a log axis."""
  points = froc.FPS_PER_SCAN
  between = np.geomspace(points[0], points[-1], 500)
  fps_per_scan = np.append(curve.fps_per_scan, between)
  sensitivity = np.append(curve.sensitivity, curve.sensitivity_at(between))
  # The sort is stable: where the curve rises vertically its own points stay in order.
  order = np.argsort(fps_per_scan, kind='stable')
  order = order[fps_per_scan[order] >= points[0]]
  return fps_per_scan[order], sensitivity[order]
