"""The bundle: a shelld that brings its own interpreter, libraries and loader, for any Linux image.

    bin/python3            the interpreter of the machine that built it
    lib/ld.so              that machine's loader, under one name on every processor
    lib/*.so*              every library that anything below needs, found by name in this directory only
    lib/python3.N/         the standard library without what a server has no use for
    app/                   shelld, protos and their packages; `python3 app` runs it
    libexec/sftp-server    OpenSSH's

`lib/ld.so --library-path lib bin/python3 -I -S app` starts it from wherever it lies: no environment
variable, no shell and no file outside of it. `shelld.bundle` knows the same layout from within.
"""
