"""Clients of other projects as programs in their own languages: one list of rows for all of them.

A program is called with port, user, private key, a directory and the port of an echo server. Program and
workspace see the directory, which has a file `payload` of 1 MiB. For each row the program prints one line of
JSON: what it saw, or `lacks` with what the library does not offer, or `error`. A `note` names a detour.
Judging is left to the test:

* `login`: by public key.
* `exec`: `cat; echo err >&2; exit 7` with `out` as its input: `out`, `err`, `status`.
* `pty`: a shell on a vt100 of 91x33, resized to 120x40 after `stty size`: `shown`, `status`.
* `symlink`: by sftp, `link` to `a-target`, read back: `target`.
* `transfer`: by sftp, `payload` to `put`, and that to `got`.
* `local_forward`: 64 KiB of the payload to the echo server: `digest` of what came back until the end.
* `remote_forward`: of a port that the server chooses; `heard` is what came back through it of `hello`.
* `rekey`: begun by the client: `exchanges`, and `out` of `echo after`.
* `keepalive`: the library's own heartbeat, during or before a command: `out` of `echo kept`.
"""
