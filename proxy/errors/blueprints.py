"""What a workspace is made from is missing, wrong, or cannot be read."""

from proxy.errors import EXIT_REFUSED, FairleadError


class BlueprintError(FairleadError):
    """A blueprint is missing or wrong."""

    code = "blueprint"


class BlueprintNotFound(BlueprintError):
    """No blueprint of that name can be used by this user."""

    code = "blueprint.not_found"
    exit_status = EXIT_REFUSED


class BlueprintInvalid(BlueprintError):
    """A blueprint file cannot be used; `where` is file, line and path of the first problem."""

    code = "blueprint.invalid"

    def __init__(self, where: str, reason: str, *, user_message: str | None = None) -> None:
        self.where = where
        self.reason = reason
        broken = "this blueprint is broken; its owner can see why in the log"
        super().__init__(f"{where}: {reason}", user_message=user_message or broken)


class BlueprintSourceFailed(BlueprintError):
    """What keeps the blueprints cannot be asked; start-up only, later the last good ones serve."""

    code = "blueprint.source_failed"
    retryable = True

    def __init__(self, reason: str) -> None:
        super().__init__(
            reason, user_message="the blueprints cannot be read; an operator can see why in the log"
        )


class RepositoryUnreachable(BlueprintError):
    """The provider of a repository does not answer, or not sensibly."""

    code = "blueprint.repository_unreachable"
    retryable = True
