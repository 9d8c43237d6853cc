"""The commands of a pod; `tests/images` runs them in images of every kind."""

from proxy.workspaces.kubernetes.bundle import IMAGE_ROOT, POD_ROOT, init_command, main_command


def test_both_containers_start_the_loader_of_the_copy_that_they_can_see() -> None:
    assert init_command()[0] == f"{IMAGE_ROOT}/lib/ld.so"
    assert init_command("/elsewhere")[-1] == "/elsewhere"
    assert main_command()[0] == f"{POD_ROOT}/lib/ld.so"
    assert all("/opt/fairlead" not in word for word in main_command(root="/elsewhere"))


def test_nothing_needs_a_shell_to_take_it_apart() -> None:
    for word in (*init_command(), *main_command()):
        assert not set(word) & set(" $;|&<>*?'\"\\")
