"""The verb `evaluate`: how good a generator is on photos it has not seen, and what each way to serve it costs."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.progress import MofNCompleteColumn

from worker.commands import bar, model_errors

if TYPE_CHECKING:
    from model.evaluate import EvaluationReport
    from model.registry import Version
    from model.scores import SetScore
    from model.serving_curve import CurvePoint

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)
_WIDTH = 16


def _sizes(_context: click.Context, _option: click.Parameter, value: str | None) -> list[int]:
    try:
        sizes = [int(size) for size in value.split(",")] if value else []
    except ValueError as error:
        raise click.BadParameter("give sizes in px, such as 192,256,320") from error
    if any(size < 32 or size % 32 for size in sizes):
        raise click.BadParameter("sizes are multiples of 32")
    return sizes


@click.command()
@click.argument("folder", metavar="DIR", type=FILE)
@click.option("--weights", type=FOLDER, help="Folder of a version or of a training run [default: the shipped one].")
@click.option("--sheet", type=FILE, help="Write a contact sheet (gray | ours | truth) here, PNG.")
@click.option("--worst", type=FILE, help="Write the 20 worst photos here, PNG.")
@click.option("--lpips", is_flag=True, help="LPIPS (AlexNet) as well; says how to install its weights if they are not.")
@click.option("--lpips-weights", type=FILE, envvar="LPIPS_ALEXNET", help="LPIPS's alexnet.ckpt [default: installed].")
@click.option("--count", type=click.IntRange(1), help="Only so many photos, spread over the set.")
@click.option("--sizes", callback=_sizes, help="Compare ways to serve instead, in these sizes: 192,256,320,384.")
@click.option("--framing", type=click.Choice(["square", "aspect"]), help="With --sizes: only this [default: both].")
@click.option("--flip/--no-flip", default=None, help="With --sizes: only with or without flip averaging.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: overall, per category, per photo.")
def evaluate(
    folder: Path,
    weights: Path | None,
    sheet: Path | None,
    worst: Path | None,
    lpips: bool,
    lpips_weights: Path | None,
    count: int | None,
    sizes: list[int],
    framing: Literal["square", "aspect"] | None,
    flip: bool | None,
    as_json: bool,
) -> None:
    """Score a generator on the colour photos in DIR, which it must never have seen.

    Per category: by a manifest.csv (file, category) in DIR or beside it, else by subfolder, else by file prefix. Below
    each row stands its 95 % bootstrap interval.
    """
    if not sizes and (framing or flip is not None):
        raise click.UsageError("--framing and --flip say which of --sizes to compare; give --sizes too.")
    if sizes and (sheet or worst):
        raise click.UsageError("--sheet and --worst show one way to serve; leave --sizes away.")
    with model_errors():
        from model.evaluate import evaluate as judge
        from model.lpips import find_alexnet
        from model.registry import open_version, shipped

        version = open_version(weights) if weights else shipped()
        alexnet = (lpips_weights or find_alexnet()) if lpips else None
        with bar(MofNCompleteColumn()) as shown:
            task = shown.add_task("judging", total=None)

            def progress(done: int, total: int) -> None:
                """Move the bar."""
                shown.update(task, completed=done, total=total)

            if sizes:
                framings = (framing,) if framing else ("square", "aspect")
                flips = (flip,) if flip is not None else (False, True)
                points = _curve(folder, version, sizes, framings, flips, count=count, lpips=alexnet, progress=progress)
            else:
                report = judge(
                    folder, version, sheet=sheet, worst_sheet=worst, lpips=alexnet, count=count, progress=progress
                )
    if sizes:
        click.echo(json.dumps([dataclasses.asdict(point) for point in points], indent=2) if as_json else _ways(points))
        return
    click.echo(json.dumps(report.as_dict(), indent=2) if as_json else _table(report))
    for name, reason in report.skipped.items():
        click.echo(f"photochrom: skipped {name}: {reason}", err=True)


def _curve(
    folder: Path, version: "Version", sizes: list[int], framings: Any, flips: Any, **how: Any
) -> list["CurvePoint"]:
    from model.serving_curve import serving_curve, ways

    return serving_curve(folder, version, ways(sizes, framings, flips), **how)


def _table(report: "EvaluationReport") -> str:
    """Figures as columns; the gray baseline, every category and the whole set as rows."""
    names = list(report.overall.figures)
    lines = [f"{'':<18} {'photos':>6} " + "".join(f"{name:>{_WIDTH}}" for name in names)]
    for name, score in {"gray (no colour)": report.gray, **report.categories, "all": report.overall}.items():
        lines += _rows(f"{name:<18} {score.photos:>6} ", score, names)
    if report.sizes_px[1]:
        lines.append(f"two_size: mean |Δab| between serving at {report.sizes_px[0]} and at {report.sizes_px[1]} px")
    return "\n".join(lines)


def _rows(head: str, score: "SetScore", names: Sequence[str]) -> list[str]:
    """A row of figures, and one of their intervals where there are any."""
    lines = [head + "".join(f"{score.figures[name]:>{_WIDTH}.4f}" for name in names)]
    if score.intervals:
        between = [f"{low:.3f}…{high:.3f}" for low, high in (score.intervals[name] for name in names)]
        lines.append(" " * len(head) + "".join(f"{text:>{_WIDTH}}" for text in between))
    return lines


def _ways(points: list["CurvePoint"]) -> str:
    """A row for every way to serve."""
    names = [n for n in ("R", "chroma_ratio", "lpips", "psnr", "ab_l1", "de00", "d_cf") if n in points[0].score.figures]
    lines = [f"{'size framing flip':<18} {'photos':>6} " + "".join(f"{name:>{_WIDTH}}" for name in (*names, "ms"))]
    for point in points:
        way = f"{point.way.size_px:>4} {point.way.framing:<7} {'yes' if point.way.flip_average else 'no':<4}"
        lines.append(_rows(f"{way:<18} {point.score.photos:>6} ", point.score, names)[0] + f"{point.ms:>{_WIDTH}.1f}")
    return "\n".join(lines)
