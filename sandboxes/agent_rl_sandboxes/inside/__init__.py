"""The programs that run inside a sandbox. Standard library only, Python 3.9 or newer, importable without this package.

They are copied into the sandbox as plain files that import each other by bare name (`import frames`), so that they run
under any Python that is found there. Start at `inetd.py`: it forks a server for each stream that the host hands over.
A backend without file descriptor passing (docker exec) runs `keeper.py PROGRAM` on a stream of its own instead.
"""
