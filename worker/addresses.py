"""Addresses of the database and of the broker, as they may be shown and logged."""

import re
from typing import Final
from urllib.parse import unquote_plus

from sqlalchemy import URL

#: words in the names of parameters that hold a secret: password, passwd, sslpassword, ssl_password, pwd, …
_SECRET: Final = ("password", "passwd", "passphrase", "pwd", "secret", "token")
_PARAMETER: Final = re.compile(r"(?<=[?&;])([^=&;?]*)=([^&;]*)")
#: a user name and what follows it; greedy, because people forget to escape an @ in a password
_USER_INFO: Final = re.compile(r"^([^:@/]*):.*@", re.DOTALL)


#: libpq's words: a server that is silent, or cut off without a word, is given up after about 20 s and asked anew. The
#: system would go on for 15 minutes, and ask only every two when it is back; and for ever while it connects.
_PATIENCE: Final = {"connect_timeout": "10", "tcp_user_timeout": "20000", "keepalives_idle": "10",
                    "keepalives_interval": "5", "keepalives_count": "2"}  # fmt: skip


def with_patience(url: URL) -> URL:
    """A PostgreSQL URL under which no connection waits for ever; what it says itself about that stays."""
    return url.update_query_dict({word: value for word, value in _PATIENCE.items() if word not in url.query})


def without_password(url: str) -> str:
    """A URL with its password masked, in the user part as in the parameters; it need not be well-formed."""
    before, separator, after = url.partition("://")
    scheme, rest = (before + separator, after) if separator else ("", url)
    return scheme + _USER_INFO.sub(r"\1:***@", _PARAMETER.sub(_masked, rest))


def _masked(parameter: re.Match[str]) -> str:
    name = unquote_plus(parameter[1]).lower()
    return f"{parameter[1]}=***" if any(word in name for word in _SECRET) else parameter[0]
