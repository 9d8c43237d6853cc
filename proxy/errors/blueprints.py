"""Errors of blueprints and of the repositories that they come from."""

from proxy.errors import EXIT_REFUSED, FairleadError


class BlueprintError(FairleadError):
    """A missing or invalid blueprint."""

    code = "blueprint"


class BlueprintNotFound(BlueprintError):
    """A blueprint name that this user cannot use, or that does not exist."""

    code = "blueprint.not_found"
    exit_status = EXIT_REFUSED


class BlueprintInvalid(BlueprintError):
    """An invalid blueprint file; `where` is file, line and path of the first problem."""

    code = "blueprint.invalid"

    def __init__(self, where: str, reason: str, *, user_message: str | None = None) -> None:
        self.where = where
        self.reason = reason
        broken = "this blueprint is broken; its owner can see why in the log"
        super().__init__(f"{where}: {reason}", user_message=user_message or broken)


class BlueprintSourceFailed(BlueprintError):
    """A source of blueprints that cannot be read; start-up only, later the last good ones are used."""

    code = "blueprint.source_failed"
    retryable = True

    def __init__(self, reason: str) -> None:
        super().__init__(
            reason, user_message="the blueprints cannot be read; an operator can see why in the log"
        )


class RepositoryUnreachable(BlueprintError):
    """A provider of repositories that does not answer, or not sensibly."""

    code = "blueprint.repository_unreachable"
    retryable = True
