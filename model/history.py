"""`history.csv`: the losses of a run, a row every few steps; resuming takes back what the checkpoint did not see."""

import csv
import os
from pathlib import Path

from model.gan import LOSSES

COLUMNS = ("step", "phase", *LOSSES, "images_s", "elapsed_s")


class History:
    """The history file of one run."""

    def __init__(self, path: Path) -> None:
        """Use the file at `path`; nothing is read or written yet."""
        self._path = path

    def rewind(self, step: int) -> None:
        """Keep the rows up to `step`; with 0 the file starts anew."""
        rows = [row for row in self.rows() if int(row["step"]) <= step]
        partial = self._path.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self._path)

    def rows(self) -> list[dict[str, str]]:
        """All complete rows, as text; none where there is no file."""
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if row["elapsed_s"]]

    def append(self, step: int, phase: str, losses: dict[str, float], images_s: float, elapsed_s: float) -> None:
        """Add a row."""
        values = [f"{losses[name]:.5f}" for name in LOSSES]
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([step, phase, *values, f"{images_s:.2f}", f"{elapsed_s:.1f}"])
            file.flush()
            os.fsync(file.fileno())
