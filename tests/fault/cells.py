"""One cell of the fault matrix, as its test fills it in."""

import dataclasses

RECOVERY_S = 60.0
#: the invariants that the running cell was held against so far; the table shows these and no others
CHECKED: set[str] = set()


@dataclasses.dataclass
class Cell:
    """What one test puts into the table."""

    fault: str = ""
    recovery_s: float | None = None
    note: str = ""

    def recovered(self, fault: str, seconds: float, note: str = "") -> None:
        """I6: so long after the fault's end everything was done."""
        self.fault, self.recovery_s, self.note = fault, max(0.0, seconds), note
        CHECKED.add("I6")
        assert seconds < RECOVERY_S, f"I6: {fault} took {seconds:.1f} s"

    def held(self, fault: str, note: str = "") -> None:
        """A fault with nothing to recover from."""
        self.fault, self.note = fault, note
