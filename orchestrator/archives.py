"""What a backup file says of itself: what is in it, when it was begun, of which revision the schema is."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Self

from orchestrator import revisions
from orchestrator.programs import BackupError, Tool, run

_MADE_AT = re.compile(r"^; Archive created at (\S+ \S+) UTC$", re.MULTILINE)
_REVISION = re.compile(r"^COPY \S*alembic_version \(version_num\) FROM stdin;\n(\S+)\n", re.MULTILINE)
_REVISION_ENTRY = re.compile(r"^.* TABLE DATA \S+ alembic_version .*\n", re.MULTILINE)


@dataclass(frozen=True)
class Archive:
    """A file in pg_dump's custom format, with an orchestrator's database in it."""

    file: Path
    contents: str
    made_at: datetime
    revision: str

    @classmethod
    def read(cls, tool: Tool, file: Path) -> Self:
        """Look into the file, with pg_restore. Raises BackupError where it is none that this code could restore."""
        file = file.absolute()  # so that it does not look like an option
        if not file.is_file():
            raise BackupError(f"there is no file {file}; name one that `orch backup` has written")
        try:
            contents = run(tool, "--list", str(file))
            said = run(tool, "--data-only", "--table=alembic_version", "--file=-", str(file))
        except BackupError as error:
            raise BackupError(f"{file} is no backup that {tool.path} can read: {error}") from None
        made_at, revision = _MADE_AT.search(contents), _REVISION.search(said)
        if made_at is None or revision is None:
            raise BackupError(f"{file} holds no orchestrator's database; name a file that `orch backup` has written")
        _check_known(file, revision[1])
        return cls(file, contents, datetime.fromisoformat(made_at[1]).replace(tzinfo=UTC), revision[1])

    @contextmanager
    def but_for_revision(self) -> Iterator[str]:
        """A list for pg_restore, as a file's name, of all but the word on the schema's revision: so long as that is
        missing, nobody takes the database for one that is ready."""
        with NamedTemporaryFile("w", prefix="orch-", suffix=".list") as entries:
            entries.write(_REVISION_ENTRY.sub("", self.contents))
            entries.flush()
            yield entries.name


def _check_known(file: Path, revision: str) -> None:
    if revision not in revisions.known():
        raise BackupError(
            f"{file} is of schema revision {revision}, which this code ({revisions.head()}) does not know: install the "
            "release that has written it, or a newer one"
        )
