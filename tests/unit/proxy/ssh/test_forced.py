import pytest

from proxy.model import Exec, Shell, Subsystem
from proxy.ssh.forced import Forced, force

SFTP_ONLY = "your certificate allows sftp only"
NO_OPTIONS = "your certificate gives options to internal-sftp, which are not supported here"


@pytest.mark.parametrize(
    ("command", "asked", "forced"),
    [
        ("backup", Exec("rm -rf /"), Forced(Exec("backup"), "rm -rf /")),
        ("backup", Shell(), Forced(Exec("backup"))),
        ("backup", Subsystem("sftp"), Forced(Exec("backup"), "internal-sftp")),
        ("backup", Subsystem("workspace-stop"), Forced(Exec("backup"), "workspace-stop")),
        ("internal-sftp", Subsystem("sftp"), Forced(Subsystem("sftp"), "internal-sftp")),
        ("internal-sftp", Shell(), Forced(Subsystem("sftp"), "", SFTP_ONLY)),
        ("internal-sftp", Exec("id"), Forced(Subsystem("sftp"), "id", SFTP_ONLY)),
        (
            "internal-sftp",
            Subsystem("workspace-stop"),
            Forced(Subsystem("sftp"), "workspace-stop", SFTP_ONLY),
        ),
        ("internal-sftp -R", Subsystem("sftp"), Forced(Subsystem("sftp"), "internal-sftp", NO_OPTIONS)),
        ("internal-sftp\t-R", Subsystem("sftp"), Forced(Subsystem("sftp"), "internal-sftp", NO_OPTIONS)),
        ("internal-sftpx", Exec("id"), Forced(Exec("internal-sftpx"), "id")),
        ("internal-sftp\n-R", Exec("id"), Forced(Exec("internal-sftp\n-R"), "id")),
    ],
)
def test_what_runs_under_a_certificate_with_a_command(
    command: str, asked: Exec | Shell | Subsystem, forced: Forced
) -> None:
    assert force(command, asked) == forced
