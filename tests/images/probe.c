/* Says who and what it is, one fact a line; what an image without a shell can be asked. */
#include <stdio.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
    char directory[4096];
    printf("uid=%d\ngid=%d\ntty=%d\n", (int)getuid(), (int)getgid(), isatty(0));
    printf("cwd=%s\n", getcwd(directory, sizeof directory) ? directory : "?");
    for (int i = 1; i < argc; i++) printf("arg=%s\n", argv[i]);
    for (char **entry = environ; *entry; entry++) printf("env=%s\n", *entry);
    return 7;
}
