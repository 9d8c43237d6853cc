"""The base of every section of the settings, and the ranges that most of them share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, le=86_400 * 30)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Bytes = Annotated[int, Field(ge=1_024, le=64 * 1024 * 1024)]


class Section(BaseModel):
    """Settings that belong together; unchangeable, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Audience(Section):
    """Users that are chosen by name or by group; empty, it chooses no user."""

    users: tuple[str, ...] = ()
    """Patterns of user names; `*` and `?` stand for characters."""
    groups: tuple[str, ...] = ()
    """Patterns of groups, as the provider of a user names them."""
