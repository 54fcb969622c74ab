"""Every error a user can meet, with what becomes of the job and the exit code of the command.

PhotochromError
├─ SetupError              a command cannot start
│  ├─ UnknownSetting       RootMissing     RootsOverlap     OutputUnwritable   StateDirInUse
│  ├─ DatabaseNewer        DatabaseUnusable    BrokerUnavailable    WeightsBroken    DependencyMissing
│  └─ PhotosUnusable       TrainingStopped    VersionRefused   CuratedRefused
├─ ScanError               about the bytes of one scan
│  ├─ ScanUnsupported      skipped: we know what it is and leave it alone
│  ├─ ScanTruncated        retried (a copy may still be under way), then quarantined
│  ├─ MemoryExceeded       retried (a fresh process may have more), then quarantined: more than job_memory_mib
│  ├─ ScanBroken           quarantined at once: the same bytes will not decode next time
│  ├─ ScanVanished         skipped; taken again when it comes back
│  │  └─ ScanMissing       looked for once more before that: its share may be away
│  ├─ ScanIgnored          skipped: it changed, and is left alone since; taken again when it is not any more
│  └─ ScanChanged  ScanUnreadable      wait, no strike
├─ OutputError             about the place the derivative goes to
│  ├─ OutputFull           OutputBlocked       wait, no strike
│  └─ VerifyFailed         retried, then quarantined: what was written is not what was meant
├─ RecordAway              waits, no strike: the database failed while the job was worked on
├─ TrainingTaken           another process has gone on with this training run
├─ TrialImpossible         not even the champion loads in a fresh process: the run waits
├─ VersionUnusable         retried, then quarantined: the version a job is bound to does not load
└─ JobMoved                the row is no longer ours: another worker has it, or an operator moved it
"""

import enum
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """Exit status of every verb; listed in the README."""

    OK = 0
    FAILED = 1
    USAGE = 2
    SOME_QUARANTINED = 3
    SOME_NOT_TAKEN = 4
    BAD_SETTING = 5
    BAD_ROOT = 6
    BAD_OUTPUT = 7
    STATE_DIR_IN_USE = 8
    DATABASE = 9
    BROKER = 10
    WEIGHTS = 11
    DEPENDENCY = 12
    UNHEALTHY = 13


class Settles(enum.StrEnum):
    """What an error makes of a job."""

    RETRY = "retry"  # a strike, then again after a back-off; at the last strike: quarantined
    WAIT = "wait"  # no strike: the scan is not at fault
    SKIP = "skip"  # the end: left alone on purpose
    QUARANTINE = "quarantine"  # the end: kept with its evidence


class PhotochromError(Exception):
    """Base of all. The message is one sentence for a person and says the next step."""

    code: ClassVar[str] = "error"
    settles: ClassVar[Settles] = Settles.RETRY
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class SetupError(PhotochromError):
    """A command cannot start; nothing was changed."""

    code = "setup"


class UnknownSetting(SetupError):
    """A name in the environment or in photochrom.toml that no setting has, or a value out of range."""

    code = "unknown_setting"
    exit_code = ExitCode.BAD_SETTING


class RootMissing(SetupError):
    """A watched folder is not there."""

    code = "root_missing"
    exit_code = ExitCode.BAD_ROOT


class RootsOverlap(SetupError):
    """Two of: source roots, output roots, state directory lie in each other."""

    code = "roots_overlap"
    exit_code = ExitCode.BAD_ROOT


class OutputUnwritable(SetupError):
    """The output folder cannot be written."""

    code = "output_unwritable"
    exit_code = ExitCode.BAD_OUTPUT


class StateDirInUse(SetupError):
    """Another `photochrom up` holds this state directory."""

    code = "state_dir_in_use"
    exit_code = ExitCode.STATE_DIR_IN_USE


class DatabaseNewer(SetupError):
    """The database was migrated by a newer Photochrom."""

    code = "database_newer"
    exit_code = ExitCode.DATABASE


class DatabaseUnusable(SetupError):
    """The database cannot be opened, is not migrated, or is SQLite on a network file system."""

    code = "database_unusable"
    exit_code = ExitCode.DATABASE


class BrokerUnavailable(SetupError):
    """No Redis or Valkey answers at the broker's address."""

    code = "broker_unavailable"
    exit_code = ExitCode.BROKER


class WeightsBroken(SetupError):
    """The generator's weights are missing, or their sha256 or shapes are not those recorded."""

    code = "weights_broken"
    exit_code = ExitCode.WEIGHTS
    settles = Settles.WAIT


class VersionRefused(SetupError):
    """A version of the generator is not there, or may not be what was asked of it."""

    code = "version_refused"
    exit_code = ExitCode.USAGE


class VersionUnusable(PhotochromError):
    """The version that a job is bound to does not load; another one must not do it in its place."""

    code = "version_unusable"


class TrainingTaken(PhotochromError):
    """Another process has gone on with this training run."""

    code = "training_taken"


class TrialImpossible(PhotochromError):
    """A challenger cannot be judged now, and it is not to blame; the run is gone on with later."""

    code = "trial_impossible"


class CuratedRefused(SetupError):
    """A curated photo is not there, or may not be learned from whoever says so."""

    code = "curated_refused"
    exit_code = ExitCode.USAGE


class PhotosUnusable(SetupError):
    """A folder of photos to learn from or to be judged on has none that will do."""

    code = "photos_unusable"
    exit_code = ExitCode.USAGE


class TrainingStopped(SetupError):
    """Training cannot start, or had to stop; its checkpoints stay."""

    code = "training_stopped"


class DependencyMissing(SetupError):
    """A program or package that this verb needs is not installed."""

    code = "dependency_missing"
    exit_code = ExitCode.DEPENDENCY


class ScanError(PhotochromError):
    """About the bytes of one scan."""

    code = "scan"


class ScanUnsupported(ScanError):
    """A kind of file or picture that is left alone on purpose."""

    code = "unsupported"
    settles = Settles.SKIP


class ScanTruncated(ScanError):
    """The file ends too early."""

    code = "truncated"
    settles = Settles.RETRY


class ScanBroken(ScanError):
    """The file cannot be decoded."""

    code = "broken"
    settles = Settles.QUARANTINE


class MemoryExceeded(ScanError):
    """The scan wants more memory than it may take; nothing is said about the file."""

    code = "memory_limit"
    settles = Settles.RETRY


class ScanVanished(ScanError):
    """The file was gone when its turn came."""

    code = "vanished"
    settles = Settles.SKIP


class ScanMissing(ScanVanished):
    """The file was not there, for the first time; a share that was unmounted this moment looks the same."""

    code = "missing"
    settles = Settles.WAIT


class ScanChanged(ScanError):
    """The file is no longer the one that was hashed; the watcher takes the new content."""

    code = "changed"
    settles = Settles.WAIT


class ScanIgnored(ScanError):
    """The file is no longer the one that was hashed, and the watcher leaves alone what it is now."""

    code = "ignored"
    settles = Settles.SKIP


class ScanUnreadable(ScanError):
    """The file is there and cannot be read: permission, stale handle, offline root."""

    code = "unreadable"
    settles = Settles.WAIT


class OutputError(PhotochromError):
    """About the place the derivative goes to."""

    code = "output"


class OutputFull(OutputError):
    """No space, or no quota, for the derivative."""

    code = "output_full"
    settles = Settles.WAIT
    exit_code = ExitCode.BAD_OUTPUT


class OutputBlocked(OutputError):
    """The output folder cannot be written at the moment."""

    code = "output_blocked"
    settles = Settles.WAIT
    exit_code = ExitCode.BAD_OUTPUT


class VerifyFailed(OutputError):
    """The written file, read again, is not what was meant; it was not published."""

    code = "verify_failed"


class RecordAway(PhotochromError):
    """The database failed while the job was worked on: it went away, was locked or full."""

    code = "record_away"
    settles = Settles.WAIT


class JobMoved(PhotochromError):
    """The row is no longer ours to move."""

    code = "job_moved"
    settles = Settles.WAIT
