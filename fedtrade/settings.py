"""A settings file, read strictly: TOML in, one frozen value out, every mistake named at once.

An unknown field is an error, never ignored: a misspelt privacy minimum that is silently dropped
would be no minimum. Paths in a file are relative to the file's own folder.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from fedtrade.errors import BadInput

SETTINGS_MAX_BYTES: Final = 262_144
MISTAKES_LISTED_MAX: Final = 20
DOTS_MAX: Final = 256
"""In one line: the parser of dotted keys takes time that grows with their square."""

S = TypeVar("S", bound=BaseModel)


class Strict(BaseModel):
    """A section of a settings file: frozen, and nothing unknown is let in."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _beside(path: Path, info: ValidationInfo) -> Path:
    """Absolute: where the file gives a relative path, it starts at the file's folder."""
    here = (info.context or {}).get("folder")
    return path if here is None else (here / path).resolve()


Beside = Annotated[Path, AfterValidator(_beside)]
"""A path relative to the folder of the file that names it."""


def read_settings(kind: type[S], path: Path) -> S:
    """Read one settings file. Raises BadInput with all mistakes (at most 20 are listed)."""
    try:
        with path.open("rb") as file:
            content = file.read(SETTINGS_MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(
            str(path), f"cannot read the settings ({error.strerror})", "Check the path."
        ) from error
    if len(content) > SETTINGS_MAX_BYTES:
        raise BadInput(
            str(path), f"over {SETTINGS_MAX_BYTES} bytes", "Settings are short: check the path."
        )
    if any(line.count(b".") > DOTS_MAX for line in content.splitlines()):
        raise BadInput(str(path), f"a line has over {DOTS_MAX} dots", "Correct the file.")
    try:
        raw: dict[str, Any] = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, not UTF-8, a huge number
        raise BadInput(str(path), f"not TOML ({str(error)[:200]})", "Correct the file.") from error
    try:
        return kind.model_validate(raw, context={"folder": path.resolve().parent})
    except ValidationError as error:
        raise BadInput(str(path), _mistakes(error), "Correct the settings.") from None


def _mistakes(error: ValidationError) -> str:
    """Every mistake as `section.field: what is wrong`, without the values that were given."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    shown = [
        f"{'.'.join(map(str, mistake['loc'])) or 'file'}: {mistake['msg']}"
        for mistake in found[:MISTAKES_LISTED_MAX]
    ]
    if len(found) > MISTAKES_LISTED_MAX:
        shown.append(f"and {len(found) - MISTAKES_LISTED_MAX} more")
    return "; ".join(shown)
